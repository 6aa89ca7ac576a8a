from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from ditr.cli.main import app, main
from ditr.cli.tables import text_table
from ditr.errors import DitrError
from ditr.files import write_json
from ditr.paths import runs_dir
from ditr.record.folder import Record
from ditr.record.recording import Identity, begin


@pytest.fixture
def runs() -> Path:
    """Two runs, one of them dead in the middle of its work."""
    for index, (name, state) in enumerate((("base", "finished"), ("fpn", "running"))):
        folder = Record(runs_dir() / f"{name}-s0-000000000{index}")
        who = Identity(
            run_key=f"000000000{index}", spec_hash="ab" * 32, name=name, variant="baseline", seed=0, kind="run"
        )
        begun = replace(begin(folder, who).state, started_at=f"2026-01-0{index + 1}T00:00:00+00:00")
        folder.set_state(begun)
        if state == "finished":
            write_json(folder.result, {"ap50": 0.25, "device": "[red]cpu", "checkpoint": None})
            folder.set_state(replace(begun, state="finished", wall_s=12.5))
    return runs_dir()


def query(sql: str, *options: str) -> str:
    asked = CliRunner().invoke(app, ["query", sql, *options], catch_exceptions=False)
    assert asked.exit_code == 0
    return asked.stdout


SQL = "select name, ap50, checkpoint, device from results order by name"


def test_table_shows_values_as_they_are(runs: Path) -> None:
    lines = query(SQL).splitlines()
    assert [line.split() for line in lines] == [
        ["name", "ap50", "checkpoint", "device"],
        ["base", "0.25", "-", "[red]cpu"],
        ["fpn", "-", "-", "-"],
    ]


def test_csv_and_json_read_back(runs: Path) -> None:
    assert list(csv.reader(query(SQL, "--format", "csv").splitlines()))[1] == ["base", "0.25", "", "[red]cpu"]
    assert json.loads(query(SQL, "--format", "json"))[1] == {
        "name": "fpn",
        "ap50": None,
        "checkpoint": None,
        "device": None,
    }
    assert json.loads(query("select 'nan'::double as x", "--format", "json")) == [{"x": "nan"}], "JSON has no NaN"


def test_parquet_goes_to_a_file(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    query(SQL, "--format", "parquet", "--out", str(file))
    assert pyarrow.parquet.read_table(file).column("ap50").to_pylist() == [0.25, None]


HEAVY = "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = 0.5"
"""What a forgotten join condition makes of two tables."""


@pytest.mark.parametrize("format", ["table", "parquet"])
def test_a_query_ends_when_its_time_is_over(format: str, runs: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(DitrError, match=r"ended after 0\.3 s"):
        query(HEAVY, "--seconds", "0.3", "--format", format, "--out", str(tmp_path / "rows"))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "sql",
    [
        "select * from range(1000000000) a, range(1000000000) b",
        "select count(distinct a.range + 1e10 * b.range) from range(1000000) a, range(1000) b",
    ],
    ids=["answer", "work"],
)
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_query_ends_when_its_memory_is_full(format: str, sql: str, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DitrError, match="needs more than 64 MiB"):
        query(sql, "--memory-mb", "64", "--format", format, "--out", str(tmp_path / "rows"))


def test_an_answer_that_parquet_cannot_hold_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DitrError, match="parquet cannot hold"):
        query("select interval '1 month'", "--format", "parquet", "--out", str(tmp_path / "rows.parquet"))


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_an_answer_goes_to_a_file_and_to_no_folder(format: str, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DitrError, match="is a folder"):
        query(SQL, "--format", format, "--out", str(tmp_path))


def test_values_within_values_are_json_too(runs: Path) -> None:
    said = query("select map {date '2026-01-01': ['nan'::double]} as x", "--format", "json")
    assert json.loads(said) == [{"x": {"2026-01-01": ["nan"]}}]


def test_a_statement_that_is_no_text_is_refused(runs: Path) -> None:
    with pytest.raises(DitrError, match="not UTF-8"):
        query("select '\udcff'")


def test_a_file_in_a_missing_folder_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DitrError, match="no such folder") as told:
        query(SQL, "--out", str(tmp_path / "none" / "rows.csv"))
    assert told.value.where == str(tmp_path / "none")


def test_a_wrong_column_is_one_message_and_exit_code_2(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ditr", "query", "select ap5 from results"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert "ap5" in said
    assert "results: run_key, kind, name, variant" in said
    assert "Traceback" not in said


def test_ls_shows_a_dead_run_as_interrupted(runs: Path) -> None:
    lines = CliRunner().invoke(app, ["ls"], catch_exceptions=False).stdout.splitlines()
    assert lines[0].split()[:6] == ["run", "kind", "variant", "seed", "state", "ap50"]
    assert lines[1].split()[:5] == ["base-s0-0000000000", "run", "baseline", "0", "finished"]
    assert lines[2].split()[:5] == ["fpn-s0-0000000001", "run", "baseline", "0", "interrupted"]


@pytest.mark.parametrize("file", ["state.json", "result.json", "metrics.jsonl"])
def test_a_damaged_record_is_a_row_of_ls_that_says_so(file: str, runs: Path) -> None:
    (runs / "base-s0-0000000000" / file).write_text("{")
    lines = CliRunner().invoke(app, ["ls"], catch_exceptions=False).stdout.splitlines()
    rows = {line.split()[0]: line for line in lines[1:]}
    assert f"unreadable {file}" in rows["base-s0-0000000000"]
    assert rows["fpn-s0-0000000001"].split()[4] == "interrupted"


def test_ls_shows_a_number_that_no_ditr_writes_in_a_few_digits(runs: Path) -> None:
    folder = Record(runs / "base-s0-0000000000")
    state = folder.state()
    assert state is not None
    folder.set_state(replace(state, wall_s=1e308))
    assert " 1e+308 " in CliRunner().invoke(app, ["ls"], catch_exceptions=False).stdout


def test_ls_without_runs_says_how_to_start() -> None:
    assert "ditr run specs/fpn_inject.yaml" in CliRunner().invoke(app, ["ls"], catch_exceptions=False).stdout


def test_rebuild_restores_a_deleted_file(runs: Path) -> None:
    query("select 1")
    (runs / "results.duckdb").unlink()
    CliRunner().invoke(app, ["results", "rebuild"], catch_exceptions=False)
    assert query("select count(*) as n from results", "--format", "csv") == "n\n2\n"


def test_rebuild_makes_what_it_can_and_says_what_it_cannot(runs: Path) -> None:
    (runs / "results.duckdb").mkdir()
    asked = CliRunner().invoke(app, ["results", "rebuild"], catch_exceptions=False)
    assert asked.exit_code == 2
    assert "results.duckdb is not whole: " in asked.stderr
    assert "mlflow.db: 0 records" in asked.stdout


def test_ui_without_runs_says_what_to_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["ditr", "ui"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "ditr run" in capsys.readouterr().err


def test_no_cell_of_a_table_is_cut_or_wrapped() -> None:
    long = "x" * 300
    assert text_table(("a", "b"), [(long, 1), ("y", 12345.678)]).splitlines() == [
        f"{'a':<300}{'b':>9}",
        f"{long}{'1':>9}",
        f"{'y':<300}{'12345.7':>9}",
    ]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_what_is_no_file_is_never_replaced(format: str, runs: Path, tmp_path: Path) -> None:
    """A device such as /dev/null would be gone for the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    asked = CliRunner().invoke(app, ["query", SQL, "--format", format, "--out", str(pipe)])
    assert isinstance(asked.exception, DitrError)
    assert pipe.is_fifo()


def test_what_a_link_leads_to_is_written(runs: Path, tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    query(SQL, "--format", "csv", "--out", str(link))
    assert link.is_symlink()
    assert file.read_text().startswith("name,")


def test_streams_that_are_closed_are_nobodys(runs: Path) -> None:
    """The files that a command opens would take their numbers, and what is printed."""
    command = f"'{sys.executable}' -m ditr.cli.main ls <&- >&- 2>&-"
    assert subprocess.run(command, shell=True, check=False).returncode == 0
