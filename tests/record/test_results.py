from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import duckdb
import pytest

from ditr.errors import Code, DitrError
from ditr.record.folder import Record
from ditr.record.views import results as module
from ditr.record.views.results import Results
from tests.reference.finished_runs import finish_anew


@pytest.fixture
def results(make_run, tmp_path: Path) -> Results:  # type: ignore[no-untyped-def]
    results = Results(tmp_path / "runs")
    made = [make_run("base", key="0000000001", ap50=0.25)]
    results.tell([*made, make_run("fpn", key="0000000002", variant="fpn_inject", ap50=0.5)])
    return results


def test_a_run_is_one_row_with_its_frames_and_metrics(results: Results) -> None:
    assert results.query("select variant, ap50, scales, wall_s from results order by ap50").rows == (
        ("baseline", 0.25, "8,4", 2.0),
        ("fpn_inject", 0.5, "8,4", 2.0),
    )
    assert results.query("select frame_id, n_points from frames where run_key = '0000000002' order by 1").rows == (
        ("scene0000_00_0", 0),
        ("scene0000_00_1", 100),
    )
    assert results.query(
        "select step, value from metrics where name = 'loss' and run_key = '0000000001' order by 1"
    ).rows == (
        (0, 1.0),
        (1, 0.5),
        (2, 1 / 3),
    )


def test_a_run_has_its_engine_and_precision_and_of_before_there_were_others_the_only_ones(
    results: Results,
    make_run,  # type: ignore[no-untyped-def]
) -> None:
    half = make_run("half", key="0000000003")
    said = json.loads(half.result.read_text())
    half.result.write_text(json.dumps(said | {"engine": "triton", "precision": "bfloat16"}))
    finish_anew(half)
    results.tell([half, make_run("begun", key="0000000004", state="interrupted")])
    assert results.query("select name, engine, precision from results order by run_key").rows == (
        ("base", "minkowski", "float32"),
        ("fpn", "minkowski", "float32"),
        ("half", "triton", "bfloat16"),
        ("begun", None, None),
    )


def test_telling_again_replaces_and_an_unfinished_run_has_no_ap(results: Results, make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0000000003", state="interrupted")
    for _ in range(2):
        results.tell([folder])
    assert results.query("select state, ap50 from results where run_key = '0000000003'").rows == (
        ("interrupted", None),
    )
    assert results.query("select count(*) from metrics where run_key = '0000000003'").rows == ((6,),)


def test_a_query_knows_what_happened_to_the_folders_since(results: Results, make_run) -> None:  # type: ignore[no-untyped-def]
    """Runs that were copied here, that went on, that ended without a word, that were removed; no command told it."""
    new = make_run("new", key="0000000003", ap50=0.75)
    assert results.query("select ap50 from results order by 1").rows == ((0.25,), (0.5,), (0.75,))
    new.log(9, {"loss": 0.125})
    finish_anew(new)
    assert results.query("select value from metrics where step = 9").rows == ((0.125,),)
    under_way = make_run("going", key="0000000004", state="running")
    with under_way.lock():
        assert results.query("select state from results where name = 'going'").rows == (("running",),)
    assert results.query("select state from results where name = 'going'").rows == (("interrupted",),)
    shutil.rmtree(new.path)
    assert results.query("select name from results order by 1").rows == (("base",), ("fpn",), ("going",))
    assert results.query("select count(*) from metrics where step = 9").rows == ((0,),)


def test_a_query_reads_no_folder_that_did_not_change(
    results: Results,
    make_run,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    read: list[str] = []
    honest = module.replace_rows

    def noted(connection: duckdb.DuckDBPyConnection, folder: Record) -> None:
        read.append(folder.path.name)
        honest(connection, folder)

    monkeypatch.setattr(module, "replace_rows", noted)
    results.query("select 1")
    make_run("new", key="0000000003")
    results.query("select 1")
    assert read == ["new-s0-0000000003"]


def test_rebuild_gives_the_same_rows(results: Results) -> None:
    tables = ("results", "frames", "metrics")
    before = [sorted(results.query(f"select * from {table}").rows, key=str) for table in tables]
    results.path.unlink()
    assert results.rebuild() == 2
    assert [sorted(results.query(f"select * from {table}").rows, key=str) for table in tables] == before
    assert not list(results.runs.glob(".results.duckdb.*part*"))


def as_an_older_version_made_it(path: Path) -> None:
    """A table lacks a column and the results have one that is no more."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE results DROP COLUMN kind")
        connection.execute("ALTER TABLE results ADD COLUMN flops DOUBLE")
        connection.execute("DROP TABLE metrics")


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_database(path: Path) -> None:
    path.write_bytes(b"not a database")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [as_an_older_version_made_it, cut_in_half, no_database, empty, Path.unlink])
def test_a_file_that_is_damaged_or_of_another_version_is_made_anew(
    results: Results,
    make_run,
    damage: Callable[[Path], None],  # type: ignore[no-untyped-def]
) -> None:
    damage(results.path)
    assert results.query("select kind, ap50 from results order by ap50").rows == (("run", 0.25), ("run", 0.5))
    damage(results.path)
    results.tell([make_run("base", key="0000000003", ap50=0.75)])
    assert results.query("select ap50 from results order by ap50").rows == ((0.25,), (0.5,), (0.75,))
    assert results.query("select count(*) from metrics").rows == ((18,),)


def test_a_file_of_a_newer_duckdb_is_made_anew(results: Results) -> None:
    """Its header says the version of its layout, and a checksum in which every word counts for itself."""
    import duckdb

    def number(place: slice) -> int:
        return int.from_bytes(content[place], "little")

    checksum, mark, version, newer = slice(0, 8), slice(8, 12), slice(12, 20), 2**16
    content = bytearray(results.path.read_bytes())
    assert content[mark] == b"DUCK"
    words = [number(slice(at, at + 8)) for at in (8, 16)]
    content[version] = newer.to_bytes(8, "little")
    changed = number(checksum)
    for before, at in zip(words, (8, 16), strict=True):
        changed ^= (before * _FACTOR ^ number(slice(at, at + 8)) * _FACTOR) % 2**64
    content[checksum] = changed.to_bytes(8, "little")
    results.path.write_bytes(content)
    with pytest.raises(duckdb.Error, match=f"version number {newer}"):
        duckdb.connect(str(results.path), read_only=True)
    assert results.query("select ap50 from results order by ap50").rows == ((0.25,), (0.5,))
    with duckdb.connect(str(results.path), read_only=True) as made:
        assert made.sql("select count(*) from results").fetchall() == [(2,)]


_FACTOR = 0xBF58476D1CE4E5B9
"""Of DuckDB's checksum."""


@pytest.mark.parametrize("mode", ["read_only=True", "read_only=False"])
def test_another_program_that_has_the_file_open_keeps_nothing_out(results: Results, make_run, mode: str) -> None:  # type: ignore[no-untyped-def]
    """A notebook that looks at it, or a browser of databases that holds it for writing."""
    code = f"import duckdb, time; c = duckdb.connect({str(results.path)!r}, {mode})"
    code += "; print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == "open\n"
        results.tell([make_run("new", key="0000000003", ap50=0.75)])
        assert results.query("select ap50 from results order by ap50").rows == ((0.25,), (0.5,), (0.75,))
        holding.kill()


def test_a_folder_that_cannot_be_written_is_answered_for_all_the_same(
    results: Results,
    make_run,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    make_run("new", key="0000000003", ap50=0.75)

    def refuse(self: Results) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Results, "_lock", refuse)
    before = results.path.read_bytes()
    assert results.query("select ap50 from results order by ap50").rows == ((0.25,), (0.5,), (0.75,))
    assert results.path.read_bytes() == before


DAMAGE = {
    "state.json": ["{", "[]", '{"run_key": {}}', '{"seed": -1}', ""],
    "result.json": ["", "[]", '{"ap50": "high"}', '{"n_frames": [1]}', '{"device": 7}'],
    "metrics.jsonl": ['{"step": {}}\n', "}{\n", '{"step": 1, "metrics": {"loss": "x"}}\n'],
    "frames.jsonl": ["{\n", '{"frame_id": "a", "n_points": "many"}\n'],
    "instances.parquet": ["PAR1", ""],
    "checks.jsonl": ["{\n"],
}


@pytest.mark.parametrize(("file", "content"), [(file, one) for file, each in DAMAGE.items() for one in each])
def test_a_damaged_record_is_one_row_that_says_so(results: Results, file: str, content: str) -> None:
    record = Record(results.runs / "base-s0-0000000001")
    (record.path / file).write_text(content)
    if file != "state.json":
        finish_anew(record)
    rows = dict(results.query("select name, state from results").rows)
    assert rows["fpn"] == "finished"
    assert rows["base-s0-0000000001"].startswith(f"unreadable {file}: ")
    assert len(rows) == 2
    assert results.query("select count(*) from metrics").rows == ((6,),), "nothing half read is left"


def test_a_record_that_is_mended_is_read_again(results: Results) -> None:
    file = results.runs / "base-s0-0000000001" / "result.json"
    good = file.read_text()
    file.write_text("{")
    assert results.query("select count(*) from results where ap50 = 0.25").rows == ((0,),)
    file.write_text(good)
    assert results.query("select count(*) from results where ap50 = 0.25").rows == ((1,),)
    assert results.query("select count(*) from results").rows == ((2,),)


def test_a_copy_says_so_and_takes_the_place_of_what_is_gone(results: Results) -> None:
    record = results.runs / "base-s0-0000000001"
    shutil.copytree(record, results.runs / "copy-s0-0000000001")
    assert results.query("select folder, state from results where name like '%s0%'").rows == (
        ("copy-s0-0000000001", "unreadable state.json: it is a copy of base-s0-0000000001"),
    )
    assert results.query("select count(*) from frames where run_key = '0000000001'").rows == ((2,),)
    shutil.rmtree(record)
    assert results.query("select folder, ap50 from results where state = 'finished' order by 1").rows == (
        ("copy-s0-0000000001", 0.25),
        ("fpn-s0-0000000002", 0.5),
    )


def test_a_name_that_is_a_pattern_is_a_name(results: Results) -> None:
    """DuckDB would read the frames of every folder that a pattern fits."""
    (results.runs / "base-s0-0000000001").rename(results.runs / "*")
    assert results.query("select state from results where folder = '*'").rows == (("finished",),)
    assert results.query("select count(*) from frames where run_key = '0000000001'").rows == ((2,),)


def test_a_name_that_is_no_utf8_ends_nothing(results: Results) -> None:
    (results.runs / "fpn-s0-0000000002").rename(os.fsdecode(os.fsencode(results.runs) + b"/\xff"))
    assert results.query("select folder from results order by 1").rows == (("?",), ("base-s0-0000000001",))


def test_a_file_that_is_a_link_to_itself_is_damage_of_its_record_alone(results: Results) -> None:
    loop = results.runs / "base-s0-0000000001" / "checks.jsonl"
    loop.symlink_to(loop)
    assert results.query("select count(*) from results").rows == ((2,),)


def test_a_line_that_a_crash_cut_off_is_no_damage(results: Results, make_run) -> None:  # type: ignore[no-untyped-def]
    with make_run("stopped", key="0000000003", state="interrupted").metrics.open("a") as file:
        file.write('{"step": 3, "metr')
    assert results.query("select state from results where name = 'stopped'").rows == (("interrupted",),)


@pytest.mark.parametrize("file", ["result.json", "metrics.jsonl", "frames.jsonl", "state.json"])
def test_a_number_that_changed_since_the_record_was_finished_is_in_no_table(results: Results, file: str) -> None:
    path = results.runs / "base-s0-0000000001" / file
    content = path.read_text()
    path.write_text(
        content.replace("1.5", "1.7").replace("0.25", "0.75").replace("0.001", "0.002").replace("2.0", "3.0")
    )
    assert path.read_text() != content
    rows = dict(results.query("select name, state from results").rows)
    assert rows["base-s0-0000000001"].startswith(f"unreadable {file}: it is not what was written")
    assert results.query("select count(*) from frames").rows == ((2,),), "nothing of it is left"


def test_processes_that_tell_it_at_once_wait_for_each_other(make_run) -> None:  # type: ignore[no-untyped-def]
    folders = [make_run("base", key=f"000000000{i}").path for i in range(4)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_tell, folders, chunksize=1)
    with duckdb.connect(str(folders[0].parent / "results.duckdb"), read_only=True) as connection:
        assert connection.execute("select count(*) from results").fetchall() == [(4,)]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('{file}')",
        "select * from read_text('{file}')",
        "select * from read_json('{file}')",
        "select * from '{file}'",
        "select * from glob('{folder}/*')",
        "select * from 'https://example.org/x.parquet'",
        "select * from read_parquet('https://example.org/x.parquet')",
        "copy results to '{folder}/stolen.csv'",
        "copy (select 1) to '{folder}/stolen.csv'",
        "copy results from '{file}'",
        "attach '{folder}/other.duckdb'",
        "export database '{folder}/all'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "reset lock_configuration",
        "pragma enable_external_access = true",
        "call pragma_version()",
        "insert into results (run_key) values ('x')",
        "update results set ap50 = 1",
        "delete from results",
        "drop table results",
        "create table mine as select 1",
        "create temp table mine as select 1",
        "select 1; select 2",
        "select 1; copy results to '{folder}/stolen.csv'",
        "checkpoint",
        "",
    ],
)
def test_sql_reaches_nothing_but_the_rows(results: Results, tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(DitrError) as error:
        results.query(sql.format(file=secret, folder=tmp_path))
    assert error.value.code is Code.QUERY
    assert "\n" not in error.value.what
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_wrong_column_is_answered_with_the_real_ones(results: Results) -> None:
    with pytest.raises(DitrError, match="ap5") as error:
        results.query("select ap5 from results")
    assert "results: run_key, kind, name, variant, seed" in error.value.fix
    assert "metrics: run_key, step, name, value" in error.value.fix


def test_a_wrong_table_is_answered_with_the_real_ones(results: Results) -> None:
    with pytest.raises(DitrError, match="reslts") as error:
        results.query("select * from reslts")
    assert error.value.fix == "The tables are: results, frames, instances, metrics, checks."


def test_a_syntax_error_is_one_line_with_an_example(results: Results) -> None:
    with pytest.raises(DitrError, match='at or near "selec"') as error:
        results.query("selec variant from results")
    assert "select variant" in error.value.fix


def test_no_results_yet_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DitrError, match="no results yet") as error:
        Results(tmp_path).query("select 1")
    assert "ditr run" in error.value.fix


def _tell(folder: Path) -> None:
    Results(folder.parent).tell([Record(folder)])
