from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from ditr.errors import DitrError
from ditr.record.folder import RunFolder, find_run, run_folders, write_text
from ditr.record.views.results import Results


def test_metrics_survive_a_line_cut_off_by_a_crash(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log(1, {"loss": 0.5})
    with folder.metrics.open("a") as file:
        file.write('{"step": 2, "metr')
    assert [(row["step"], row["metrics"]) for row in folder.logged()] == [(1, {"loss": 0.5})]


def test_a_run_that_lost_power_goes_on_with_whole_lines(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789", state="interrupted")
    with folder.metrics.open("a") as file:
        file.write('{"step": 3, "metr')
    results = Results(folder.path.parent / "results.duckdb")
    folder.begin(folder.state())
    results.record(folder)
    folder.log(3, {"loss": 0.25})
    assert [row["step"] for row in folder.logged()] == [0, 1, 2, 3]


def test_a_resumed_run_replaces_what_it_logs_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step, name in ((1, "train/loss"), (2, "train/loss"), (2, "epoch/loss"), (2, "val/ap"), (3, "train/loss")):
        folder.log(step, {name: float(step)})
    folder.rewind_metrics(2, {"val/ap": 0.5})
    folder.log(2, {"val/ap": 0.5})
    rows = [(row["step"], row["metrics"]) for row in folder.logged()]
    assert rows == [(1, {"train/loss": 1.0}), (2, {"train/loss": 2.0}), (2, {"epoch/loss": 2.0}), (2, {"val/ap": 0.5})]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "half of a new one \ud800")
    assert file.read_text() == "old"


def test_a_folder_is_run_by_one_process_at_a_time(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789", state="running")
    with folder.lock():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            message, locked = pool.apply(_try_lock, (folder.path,))
        assert "runs this now" in message
        assert locked
    assert not folder.is_locked()


def test_damaged_state_names_the_file_and_the_way_out(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789")
    (folder.path / "state.json").write_text("{")
    with pytest.raises(DitrError, match="unreadable run state") as error:
        folder.state()
    assert error.value.where.endswith("state.json")
    assert error.value.fix


def test_a_state_of_before_there_were_kinds_is_a_runs(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789")
    file = folder.path / "state.json"
    content = json.loads(file.read_text())
    del content["kind"]
    file.write_text(json.dumps(content))
    assert folder.state().kind == "run"


def test_runs_are_found_by_key_whatever_their_name(make_run) -> None:  # type: ignore[no-untyped-def]
    first = make_run("base", key="0123456789")
    second = make_run("other", key="9876543210")
    assert [folder.path for folder in run_folders(first.path.parent)] == [first.path, second.path]
    found = find_run(first.path.parent, "9876543210")
    assert found is not None
    assert found.path == second.path
    assert find_run(first.path.parent, "0000000000") is None


def _try_lock(path: Path) -> tuple[str, bool]:
    folder = RunFolder(path)
    try:
        with folder.lock():
            return "", False
    except DitrError as error:
        return error.what, folder.is_locked()
