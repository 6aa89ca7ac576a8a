from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

from ditr.errors import Code, DitrError
from ditr.files import replacing, write_text
from ditr.record.folder import Record, find_record, records_in
from ditr.record.recording import Identity, begin
from ditr.record.state import UnreadableRecord
from tests.reference.finished_runs import finish_anew


def test_metrics_survive_a_line_cut_off_by_a_crash(tmp_path: Path) -> None:
    folder = Record(tmp_path)
    folder.log(1, {"loss": 0.5})
    with folder.metrics.open("a") as file:
        file.write('{"step": 2, "metr')
    assert [(row["step"], row["metrics"]) for row in folder.logged()] == [(1, {"loss": 0.5})]


def test_a_resumed_run_replaces_what_it_logs_again(tmp_path: Path) -> None:
    folder = Record(tmp_path)
    for step, name in ((1, "train/loss"), (2, "train/loss"), (2, "epoch/loss"), (2, "val/ap"), (3, "train/loss")):
        folder.log(step, {name: float(step)})
    folder.rewind_metrics(2, {"val/ap": 0.5})
    folder.log(2, {"val/ap": 0.5})
    rows = [(row["step"], row["metrics"]) for row in folder.logged()]
    assert rows == [(1, {"train/loss": 1.0}), (2, {"train/loss": 2.0}), (2, {"epoch/loss": 2.0}), (2, {"val/ap": 0.5})]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "half of a new one \ud800")
    with pytest.raises(FileNotFoundError), replacing(file):
        raise FileNotFoundError("no room for a new one")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    synced, renamed = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        order.append("sync")
        synced(handle)

    def rename(self: Path, target: Path) -> Path:
        order.append("rename")
        return renamed(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    write_text(tmp_path / "state.json", "x")
    assert order == ["sync", "rename", "sync"], "the file, then its name, then the folder that holds the name"


def test_a_folder_is_run_by_one_process_at_a_time(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789", state="running")
    with folder.lock():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            message, locked = pool.apply(_try_lock, (folder.path,))
        assert "runs this now" in message
        assert locked
    assert not folder.is_locked()


def test_looking_whether_a_folder_is_locked_keeps_nobody_from_locking_it(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789", state="running")
    with folder.lock():
        pass
    code = f"import sys; sys.path[:0] = {sys.path!r}\nfrom pathlib import Path\nfrom ditr.record.folder import Record\n"
    code += f"folder = Record(Path({str(folder.path)!r}))\nprint('looks', flush=True)\nwhile True: folder.is_locked()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as looking:
        assert looking.stdout is not None
        assert looking.stdout.readline() == "looks\n"
        until = time.monotonic() + 1
        count = 0
        while time.monotonic() < until:
            with folder.lock():
                count += 1
        looking.kill()
    assert count > 20, "each was granted"


def test_two_that_look_do_not_see_each_other(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789")
    with folder.lock():
        pass
    seen: list[bool] = []
    threads = [threading.Thread(target=lambda: seen.extend(folder.is_locked() for _ in range(300))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [False] * 1200


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", "{"),
        ("state.json", "[]"),
        ("state.json", "\x00\x00\x00"),
        ("state.json", '{"run_key": 3}'),
        ("state.json", None),
        ("result.json", "null"),
        ("result.json", '{"ap": "a lot"}'),
        ("result.json", '{"ap": NaN}'),
        ("result.json", '{"n_frames": 1.5}'),
        ("provenance.json", "[1]"),
        ("metrics.jsonl", '{"step": "one", "at": 1, "metrics": {}}\n'),
        ("metrics.jsonl", '{"step": 1, "at": 1, "metrics": {"loss": "high"}}\n'),
        ("metrics.jsonl", '{"step": 1\n{"step": 2, "at": 1, "metrics": {}}\n'),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong_and_the_way_out(make_run, file: str, content: str | None) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789")
    path = folder.path / file
    path.unlink()
    path.mkdir() if content is None else path.write_text(content)
    if file != "state.json":
        finish_anew(folder)
    with pytest.raises(UnreadableRecord, match=f"unreadable {file}: ") as error:
        folder.state(), folder.read_result(), folder.read_provenance(), list(folder.logged())
    assert error.value.where == str(path)
    assert error.value.fix


@pytest.mark.parametrize("file", ["result", "provenance", "metrics", "frames", "spec"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_file_of_a_finished_record_is_as_it_was_then_or_refused(make_run, file: str, gone: bool) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789")
    path = getattr(folder, file)
    assert folder.require_whole(path) == path
    path.unlink() if gone else path.write_bytes(path.read_bytes().replace(b"0", b"8"))
    readers = {"result": folder.read_result, "provenance": folder.read_provenance, "spec": folder.read_spec}
    with pytest.raises(UnreadableRecord, match="it is gone" if gone else "it is not what was written") as error:
        readers.get(file, lambda: list(folder.logged()) if file == "metrics" else folder.require_whole(path))()
    assert (error.value.where, error.value.code) == (str(path), Code.RUN)


def test_a_file_that_came_to_a_finished_record_is_refused(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789")
    folder.checks.write_text("{}\n")
    with pytest.raises(UnreadableRecord, match=r"unreadable checks\.jsonl"):
        folder.require_whole(folder.checks)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"state": "interrupted"}, {"schema": 1}, {"files": {}}, {"digest": None}]
)
def test_a_state_that_is_not_what_was_written_is_refused(make_run, change: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789")
    content = json.loads(folder.state_file.read_text())
    for changed in (content | change, {name: value for name, value in content.items() if name not in change}):
        folder.state_file.write_text(json.dumps(changed))
        with pytest.raises(UnreadableRecord, match=r"unreadable state\.json: it is not what was written"):
            folder.state()


def test_a_record_that_is_not_finished_may_grow(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789", state="interrupted")
    folder.log(9, {"loss": 0.5})
    assert [row["step"] for row in folder.logged()] == [0, 1, 2, 9]


def test_a_state_of_an_earlier_version_is_read(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789")
    content = json.loads(folder.state_file.read_text())
    for name in ("kind", "schema", "files", "digest"):
        del content[name]
    folder.state_file.write_text(json.dumps(content | {"mlflow_run": "0" * 32}))
    assert folder.state().kind == "run"


def test_runs_are_found_by_key_whatever_their_name_and_damaged_ones_are_listed(make_run) -> None:  # type: ignore[no-untyped-def]
    first = make_run("base", key="0123456789")
    second = make_run("other", key="9876543210")
    assert [folder.path for folder in records_in(first.path.parent)] == [first.path, second.path]
    found = find_record(first.path.parent, "9876543210")
    assert found is not None
    assert found.path == second.path
    assert find_record(first.path.parent, "0000000000") is None
    second.state_file.write_text("{")
    assert [folder.path for folder in records_in(first.path.parent)] == [second.path, first.path]


def test_a_run_that_lost_power_goes_on_with_whole_lines_and_without_leftovers(make_run) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("base", key="0123456789", state="interrupted")
    with folder.metrics.open("a") as file:
        file.write('{"step": 3, "metr')
    left = [folder.path / "checkpoints" / ".state.pt.4711.part", folder.path / ".result.json.4711"]
    for path in left:
        path.write_text("half")
    who = Identity(run_key="0123456789", spec_hash="", name="base", variant="baseline", seed=0, kind="run")
    recording = begin(folder, who)
    folder.log(3, {"loss": 0.25})
    assert [row["step"] for row in folder.logged()] == [0, 1, 2, 3]
    assert not any(path.exists() for path in left)
    assert recording.state.state == "running"


def _try_lock(path: Path) -> tuple[str, bool]:
    folder = Record(path)
    try:
        with folder.lock():
            return "", False
    except DitrError as error:
        return error.what, folder.is_locked()


def test_the_log_names_no_place_of_the_machine(make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    folder = make_run("a", key="0000000001")
    monkeypatch.setenv("DITR_DATA", str(tmp_path / "my data"))
    try:
        raise DitrError("broken", code=Code.DATASET, where=str(tmp_path / "my data" / "x.bin"))
    except DitrError:
        folder.append_log(traceback.format_exc())
    text = folder.log_file.read_text()
    assert "broken" in text
    assert "$DITR_DATA/x.bin" in text
    assert 'File "tests/record/test_folder.py"' in text
    assert str(tmp_path) not in text
