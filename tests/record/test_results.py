from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import NoReturn

import duckdb
import pytest

from ditr.errors import Code, DitrError
from ditr.record.folder import RunFolder
from ditr.record.views.results import Results


@pytest.fixture
def results(make_run, tmp_path: Path) -> Results:  # type: ignore[no-untyped-def]
    results = Results(tmp_path / "runs" / "results.duckdb")
    results.record(make_run("base", key="0000000001", ap50=0.25))
    results.record(make_run("fpn", key="0000000002", variant="fpn_inject", ap50=0.5))
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


def test_recording_again_replaces_and_an_unfinished_run_has_no_ap(results: Results, make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0000000003", state="interrupted")
    for _ in range(2):
        results.record(folder)
    assert results.query("select state, ap50 from results where run_key = '0000000003'").rows == (
        ("interrupted", None),
    )
    assert results.query("select count(*) from metrics where run_key = '0000000003'").rows == ((6,),)


def test_rebuild_gives_the_same_rows(results: Results) -> None:
    tables = ("results", "frames", "metrics")
    before = [sorted(results.query(f"select * from {table}").rows, key=str) for table in tables]
    results.path.unlink()
    assert results.rebuild() == 2
    assert [sorted(results.query(f"select * from {table}").rows, key=str) for table in tables] == before


def as_an_older_version_made_it(results: Results) -> None:
    """A table lacks a column and the results have one that is no more."""
    with duckdb.connect(str(results.path)) as connection:
        connection.execute("ALTER TABLE results DROP COLUMN kind")
        connection.execute("ALTER TABLE results ADD COLUMN flops DOUBLE")
        connection.execute("DROP TABLE metrics")


def test_results_of_an_older_version_are_made_anew_when_asked(results: Results) -> None:
    as_an_older_version_made_it(results)
    assert results.query("select kind, ap50 from results order by ap50").rows == (("run", 0.25), ("run", 0.5))
    assert results.query("select count(*) from metrics").rows == ((12,),)
    assert not list(results.path.parent.glob(".results.duckdb.new*"))


def test_results_of_an_older_version_are_made_anew_when_a_run_is_recorded(results: Results, make_run) -> None:  # type: ignore[no-untyped-def]
    as_an_older_version_made_it(results)
    results.record(make_run("base", key="0000000003", ap50=0.75))
    assert results.query("select ap50 from results order by ap50").rows == ((0.25,), (0.5,), (0.75,))


def test_results_of_an_older_version_that_cannot_be_written_say_what_to_do(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_an_older_version_made_it(results)

    def refuse(self: Results) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Results, "_lock", refuse)
    with pytest.raises(DitrError, match="another version of ditr and cannot be made anew: Permission denied") as error:
        results.query("select 1")
    assert "ditr results rebuild" in error.value.fix


def test_a_rebuild_that_fails_leaves_the_old_file(results: Results) -> None:
    before = results.path.read_bytes()
    (results.path.parent / "base-s0-0000000001" / "result.json").write_text("{")
    with pytest.raises(ValueError, match="Expecting"):
        results.rebuild()
    assert results.path.read_bytes() == before
    assert not list(results.path.parent.glob(".results.duckdb.new*"))


def test_a_damaged_file_can_be_made_anew(results: Results) -> None:
    results.path.write_bytes(b"not a database")
    assert results.rebuild() == 2
    assert results.query("select count(*) from results").rows == ((2,),)


def test_processes_that_record_at_once_wait_for_each_other(make_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folders = [make_run("base", key=f"000000000{i}").path for i in range(4)]
    path = tmp_path / "runs" / "results.duckdb"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(_record, [(path, folder) for folder in folders], chunksize=1)
    assert Results(path).query("select count(*) from results").rows == ((4,),)


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
        Results(tmp_path / "results.duckdb").query("select 1")
    assert "ditr run" in error.value.fix


def _record(path: Path, folder: Path) -> None:
    Results(path).record(RunFolder(folder))
