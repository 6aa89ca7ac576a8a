from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from ditr.errors import DitrError
from ditr.files import write_json
from ditr.paths import project_dir
from ditr.record import recording
from ditr.record.folder import Record
from ditr.record.state import State, UnreadableRecord
from ditr.runner.plan import PlannedRun, plan
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.registry import Registry
from tests.reference.finished_runs import finish_anew

REGISTRY = Registry()


def load(name: str, *overrides: str) -> LoadedSpec:
    return load_spec(project_dir() / "specs" / f"{name}.yaml", registry=REGISTRY, overrides=overrides)


def planned(specs: list[LoadedSpec], runs: Path, *, force: bool = False) -> list[tuple[str, str]]:
    return [
        (run.folder.path.name[: -len("-0123456789")], run.status)
        for run in plan(specs, registry=REGISTRY, runs=runs, force=force)
    ]


def begin(run: PlannedRun, state: State) -> Record:
    begun = recording.begin(run.folder, run.identity(kind="run", seed=run.seed))
    run.folder.set_state(replace(begun.state, state=state))
    return run.folder


def test_every_spec_and_seed_is_a_new_run(tmp_path: Path) -> None:
    specs = [load("baseline", "seeds=[0,7]"), load("fpn_inject")]
    assert planned(specs, tmp_path) == [("baseline-s0", "new"), ("baseline-s7", "new"), ("fpn_inject-s0", "new")]
    assert not list(tmp_path.iterdir()), "planning writes nothing"


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", "finished"), ("interrupted", "resume"), ("failed", "resume"), ("running", "resume")],
)
def test_what_was_done_decides_what_is_planned(tmp_path: Path, state: State, status: str) -> None:
    """A folder that says running and that no process holds is of one that died."""
    (run,) = plan([load("baseline")], registry=REGISTRY, runs=tmp_path, force=False)
    begin(run, state)
    assert planned([load("baseline")], tmp_path) == [("baseline-s0", status)]
    assert planned([load("baseline")], tmp_path, force=True) == [("baseline-s0", "again")]


def test_a_damaged_run_is_not_skipped_as_finished(tmp_path: Path) -> None:
    (run,) = plan([load("baseline")], registry=REGISTRY, runs=tmp_path, force=False)
    begin(run, "running")
    write_json(run.folder.result, {"ap50": 0.5})
    folder = begin(run, "finished")
    write_json(folder.result, {"ap50": 0.6})
    with pytest.raises(UnreadableRecord, match="does not fit its digest"):
        planned([load("baseline")], tmp_path)
    assert planned([load("baseline")], tmp_path, force=True) == [("baseline-s0", "again")]


def test_a_run_that_another_process_holds_is_left_alone(tmp_path: Path) -> None:
    (run,) = plan([load("baseline")], registry=REGISTRY, runs=tmp_path, force=False)
    with begin(run, "running").lock():
        assert planned([load("baseline")], tmp_path, force=True) == [("baseline-s0", "busy")]


def test_one_experiment_under_two_names_is_run_once_and_says_so(tmp_path: Path) -> None:
    first, second = plan(
        [load("baseline"), load("baseline", "name=other")], registry=REGISTRY, runs=tmp_path, force=False
    )
    assert (first.status, second.status) == ("new", "same")
    assert second.same_as == first.folder.path.name
    begin(first, "finished")
    (later,) = plan([load("baseline", "name=other")], registry=REGISTRY, runs=tmp_path, force=False)
    assert (later.status, later.same_as) == ("finished", first.folder.path.name)


def test_a_changed_number_is_another_run_and_a_changed_word_is_not(tmp_path: Path) -> None:
    def key(*overrides: str) -> str:
        return plan([load("baseline", *overrides)], registry=REGISTRY, runs=tmp_path, force=False)[0].key

    assert key("schedule.learning_rate=0.002") != key()
    assert key("description=words", "execution.workers=0", "tracking.mlflow=false") == key()


def test_a_finished_run_does_not_stand_for_changed_weights(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"first")
    spec = load("baseline", f"checkpoint={{kind: file, path: {weights}, format: ditr}}")
    (run,) = plan([spec], registry=REGISTRY, runs=tmp_path, force=False)
    folder = begin(run, "finished")
    write_json(folder.provenance, {"start_weights": {"sha256": hashlib.sha256(b"first").hexdigest()}})
    finish_anew(folder)
    assert planned([spec], tmp_path) == [("baseline-s0", "finished")]
    weights.write_bytes(b"second")
    with pytest.raises(DitrError, match="changed since this run read it: the checkpoint"):
        planned([spec], tmp_path)
    assert planned([spec], tmp_path, force=True) == [("baseline-s0", "again")]
