"""What two steps say of a whole training."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from ditr.data.dataset import Dataset
from ditr.errors import Code, DitrError
from ditr.paths import project_dir
from ditr.record.recording import begin
from ditr.runner.costs import Costs, MapCosts
from ditr.runner.execution import settle
from ditr.runner.plan import plan
from ditr.runner.probe import Probe, probe, seconds_left, seconds_of_a_run
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.registry import Registry

REGISTRY = Registry()
PROBE = Probe(
    device="CPU", step_ms=1000, read_ms=300, frame_ms=50, map_ms=0, peak_mem_mb=1, memory_of="resident memory"
)
COSTS = Costs(weights={}, frames=(100, 40), steps=250, maps=MapCosts(), forward=None)


def load(*overrides: str) -> LoadedSpec:
    return load_spec(project_dir() / "specs/bifusion.yaml", registry=REGISTRY, overrides=overrides)


def test_a_run_takes_its_steps_and_its_validations() -> None:
    spec = load("schedule.epochs=10", "schedule.validate_every=4", "execution.workers=2").spec
    validations = 3 * 40 * 0.050
    assert seconds_of_a_run(spec, costs=COSTS, probe=PROBE) == pytest.approx(250 * 1.0 + validations)
    slow = replace(PROBE, read_ms=4000)
    assert seconds_of_a_run(spec, costs=COSTS, probe=slow) == pytest.approx(250 * 2.0 + validations), "two read"
    alone = load("schedule.epochs=10", "schedule.validate_every=4", "execution.workers=0").spec
    assert seconds_of_a_run(alone, costs=COSTS, probe=PROBE) == pytest.approx(250 * 1.3 + validations)


def test_what_was_done_before_is_not_estimated_again(tmp_path: Path) -> None:
    (run,) = plan([load()], registry=REGISTRY, runs=tmp_path, force=False)
    whole = seconds_of_a_run(run.spec, costs=COSTS, probe=PROBE)
    assert seconds_left(run, costs=COSTS, probe=PROBE) == whole
    begin(run.folder, run.identity(kind="run", seed=run.seed))
    run.folder.log(200, {"train/loss": 1.0})
    assert seconds_left(replace(run, status="resume"), costs=COSTS, probe=PROBE) == pytest.approx(whole / 5)
    assert seconds_left(replace(run, status="again"), costs=COSTS, probe=PROBE) == whole
    assert seconds_left(replace(run, status="finished"), costs=COSTS, probe=PROBE) == 0


def test_a_probe_measures_and_leaves_nothing(tiny_dataset: Dataset, tmp_path: Path) -> None:
    before = sorted(tiny_dataset.root.parent.parent.rglob("*"))
    spec = load("dataset.name=synthrooms_tiny", "schedule.batch_size=1", "features.input_size=[42, 56]").spec
    measured = probe(settle(spec), makes_maps=True)
    assert min(measured.step_ms, measured.read_ms, measured.frame_ms, measured.map_ms, measured.peak_mem_mb) > 0
    assert sorted(tiny_dataset.root.parent.parent.rglob("*")) == before
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_another_process_is_the_same_mistake_here() -> None:
    error = DitrError("what", code=Code.DATASET, where="here", fix="do")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, DitrError)
    assert (str(again), again.code, again.where) == (str(error), Code.DATASET, "here")
