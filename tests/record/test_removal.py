from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ditr.errors import DitrError
from ditr.record.folder import Record
from ditr.record.recording import move_aside
from ditr.record.removal import records_called, replaced_records, unfinished_work


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def test_records_are_removed_by_name_or_path_and_nothing_beside_them(make_run) -> None:  # type: ignore[no-untyped-def]
    first, second = make_run("base", key="0000000001"), make_run("other", key="0000000002", state="failed")
    (found,) = records_called(first.path.parent, [str(first.path) + "/", first.path.name])
    assert (found.path, found.what) == (first.path, "finished run")
    assert found.size_bytes == sum(file.stat().st_size for file in first.path.rglob("*"))
    found.remove()
    assert not first.path.exists()
    assert second.path.exists()


def test_what_is_not_there_or_runs_is_refused(make_run) -> None:  # type: ignore[no-untyped-def]
    folder: Record = make_run("base", key="0000000001", state="running")
    with pytest.raises(DitrError, match="did you mean base-s0-0000000001") as error:
        records_called(folder.path.parent, ["base-s0-0000000002"])
    assert "ditr ls" in error.value.fix
    with pytest.raises(DitrError, match="no record is called"):
        records_called(folder.path.parent, [".replaced"])
    with pytest.raises(DitrError, match="no record of the folder of runs"):
        records_called(folder.path.parent, [f"/elsewhere/{folder.path.name}"])
    with folder.lock(), pytest.raises(DitrError, match="a process runs this now"):
        records_called(folder.path.parent, [folder.path.name])


def test_replaced_ones_are_found_whole(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0000000001")
    runs = folder.path.parent
    assert replaced_records(runs) == ()
    aside = move_aside(folder)
    (found,) = replaced_records(runs)
    assert (found.path, found.what) == (aside, "replaced finished run")


def test_of_unfinished_work_only_what_no_process_does_any_more(make_run, gone: int) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0000000001", state="interrupted")
    runs = folder.path.parent
    drafts = runs / ".unfinished"
    for name in (f"base-eval-{gone}", f"base-check-{os.getpid()}"):
        (drafts / name).mkdir(parents=True)
    left = [
        folder.path / "checkpoints" / f".state.pt.{gone}.part",
        folder.path / f".result.json.{gone}",
        runs / f".results.duckdb.{gone}.part",
        runs / f".results.duckdb.{gone}.part.wal",
        runs / f".mlflow.db.{gone}.part-journal",
    ]
    used = folder.path / f".state.json.{os.getpid()}.part"
    output = runs / f".{folder.path.name}.job.txt"
    for path in (*left, used, output):
        path.write_text("half")
    found = {one.path for one in unfinished_work(runs)}
    assert found == {drafts / f"base-eval-{gone}", *left, output}
    with folder.lock():
        assert output not in {one.path for one in unfinished_work(runs)}, "its job is at work"


def test_an_empty_folder_of_records_has_nothing_to_remove(tmp_path: Path) -> None:
    assert replaced_records(tmp_path / "none") == unfinished_work(tmp_path / "none") == ()
