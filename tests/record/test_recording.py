from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ditr.errors import Code, DitrError, Interrupted
from ditr.record.folder import Record, records_in
from ditr.record.recording import Identity, begin, draft


def identity(key: str = "0123456789", *, name: str = "base", **changes: object) -> Identity:
    return Identity(run_key=key, spec_hash="", name=name, variant="baseline", seed=None, kind="eval")


def make(runs: Path, *, ap: float, name: str = "base") -> Path | None:
    with draft(runs, name=f"{name}-eval") as work:
        assert records_in(runs) == () or all(found.path != work.folder.path for found in records_in(runs))
        work.folder.result.write_text(json.dumps({"ap": ap}))
        return work.finish(work.state(identity(name=name))).replaced


def test_a_draft_is_listed_when_it_is_whole_and_takes_the_place_of_the_same_of_before(tmp_path: Path) -> None:
    assert make(tmp_path, ap=0.25) is None
    aside = make(tmp_path, ap=0.5, name="renamed")
    (folder,) = records_in(tmp_path)
    assert folder.path.name == "renamed-eval-0123456789"
    assert folder.read_result() == {"ap": 0.5}
    assert aside is not None
    assert Record(aside).read_result() == {"ap": 0.25}
    assert not (tmp_path / ".unfinished").exists()


@pytest.mark.parametrize("error", [DitrError("wrong", code=Code.RUN), Interrupted(), KeyboardInterrupt()])
def test_a_mistake_or_a_stop_leaves_what_was_there_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    make(tmp_path, ap=0.25)
    with pytest.raises(type(error)), draft(tmp_path, name="base-eval"):
        raise error
    (folder,) = records_in(tmp_path)
    assert folder.read_result() == {"ap": 0.25}
    assert not (tmp_path / ".unfinished").exists()


def test_a_bug_leaves_its_traceback_and_says_where(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as error, draft(tmp_path, name="base-eval"):
        raise ZeroDivisionError("in here")
    (note,) = error.value.__notes__
    assert "in here" in Path(note.removeprefix("traceback: ")).read_text()
    assert records_in(tmp_path) == ()


def test_a_draft_whose_place_another_process_writes_is_refused_and_that_one_stays(tmp_path: Path) -> None:
    make(tmp_path, ap=0.25)
    (folder,) = records_in(tmp_path)
    with folder.lock(), pytest.raises(DitrError, match="runs this now"):
        make(tmp_path, ap=0.5)
    assert folder.read_result() == {"ap": 0.25}


def test_sessions_of_a_training_add_up(tmp_path: Path) -> None:
    folder = Record(tmp_path / "base-s0-0123456789")
    who = Identity(run_key="0123456789", spec_hash="", name="base", variant="baseline", seed=0, kind="run")
    first = begin(folder, who)
    first.note_steps(7)
    ended = first.finish("failed", error="no room")
    assert folder.state() == ended
    assert (ended.state, ended.error, ended.steps) == ("failed", "no room", 7)
    again = begin(folder, who)
    assert (again.state.state, again.state.error, again.state.started_at) == ("running", None, ended.started_at)
    done = again.finish("finished")
    assert done.wall_s is not None
    assert ended.wall_s is not None
    assert done.wall_s >= ended.wall_s


@pytest.mark.parametrize("name", ["log.txt", "checkpoints", "panels/a.png", "kept"])
@pytest.mark.parametrize("target", ["outside", "missing", None])
def test_a_session_writes_through_no_link_that_leads_out_of_the_record(
    name: str, target: str | None, tmp_path: Path
) -> None:
    """``target`` lies beside the record; None is a place within it."""
    folder, outside = Record(tmp_path / "base-s0-0123456789"), tmp_path / "outside"
    begin(folder, identity()).finish("interrupted")
    (folder.path / "panels").mkdir()
    (folder.path / "elsewhere").mkdir()
    outside.write_text("mine\n")
    shutil.rmtree(folder.path / "checkpoints")
    link = folder.path / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(folder.path / "elsewhere" if target is None else tmp_path / target)
    if target is None:
        begin(folder, identity())
        return
    with pytest.raises(DitrError, match="leads out of the record") as told:
        begin(folder, identity())
    assert told.value.where == str(link)
    assert outside.read_text() == "mine\n"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("name", [".locks", ".unfinished"])
def test_where_nothing_can_be_written_is_a_mistake_of_the_user(tmp_path: Path, name: str) -> None:
    """A file stands where a folder is needed, as on a read-only disk none can be made."""
    (tmp_path / name).write_text("")
    begun = Record(tmp_path / "a-s0-1").lock() if name == ".locks" else draft(tmp_path, name="a")
    with pytest.raises(DitrError, match="cannot write here"), begun:
        pass
    assert not Record(tmp_path / "a-s0-1").is_locked()
