"""Nothing of the sparse library outlives a step: its maps lie beside torch's memory, where nobody frees them early."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.memory import Watch, growth, samples, small_model, train
from ditr.data.batch import as_it_is
from ditr.evaluation.evaluate import evaluate
from ditr.progress import silent
from ditr.spec.models import DatasetSpec, EvaluationSpec, ExecutionSpec, ScheduleSpec, Spec
from ditr.training.fit import fit
from ditr.training.state import TrainingState
from tests.reference.synthetic_frames import live_sparse_objects

CPU = torch.device("cpu")
MOST_MIB = 6.0
"""Of what an allocator may take in 140 steps; 44 KiB a step."""


class Looking:
    """A sink, a validation and a progress that look at what is alive when they are called."""

    def __init__(self) -> None:
        self.alive: list[list[str]] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.alive.append(live_sparse_objects())

    def progress(self, what: str, done: int, total: int) -> None:
        self.alive.append(live_sparse_objects())


def test_no_sparse_tensor_outlives_a_step_or_a_frame(tmp_path: Path) -> None:
    """Without help of the garbage collector: what waits for it holds memory until it happens to run."""
    looking, model = Looking(), small_model("minkowski")
    schedule = ScheduleSpec(epochs=1, batch_size=2, validate_every=1)
    spec = Spec(name="x", dataset=DatasetSpec(name="none"), schedule=schedule, execution=ExecutionSpec(workers=0))

    def validate(epochs_done: int) -> Mapping[str, float]:
        held_out = samples(2, points=300, augmented=False)
        evaluate(
            model, held_out, spec=EvaluationSpec(), device=CPU, encode=as_it_is, workers=0, progress=looking.progress
        )
        return {}

    gc.collect()
    gc.disable()
    shared = live_sparse_objects()  # by other tests of this session
    try:
        fit(
            model,
            train=samples(6, points=300, augmented=True),
            spec=spec,
            seed=0,
            device=CPU,
            sink=looking,
            state=TrainingState(tmp_path / "state.pt"),
            encode=as_it_is,
            validate=validate,
            progress=silent,
            should_stop=lambda: False,
        )
    finally:
        gc.enable()
    assert len(looking.alive) == 3 + 1 + 3 + 1, "steps, epoch, frames and their end, validation"
    assert looking.alive == [shared] * 8


@pytest.mark.slow
def test_200_steps_grow_no_threads_no_files_and_no_memory() -> None:
    """Two epochs and a validation; ``benchmarks/memory.py`` does the same for thousands of steps."""
    watch = Watch(CPU, every=20)
    train(200, points=60, engine="minkowski", device=CPU, watch=watch)
    looks = [held for step, held in watch.seen.items() if step >= 60]
    assert len(looks) == 8
    assert {(held.threads, held.files, held.sparse) for held in looks} == {(looks[0].threads, looks[0].files, 0)}
    grown = [held.host_mib - looks[0].host_mib for held in looks]
    assert max(grown) < MOST_MIB, f"MiB above what was held after 60 steps: {grown}"


def test_growth_is_the_slope_of_a_line_within_its_error() -> None:
    rng = np.random.default_rng(0)
    steps = list(range(0, 1000, 50))
    slope, error = growth(
        steps, [300 + 0.02 * step + noise for step, noise in zip(steps, rng.normal(size=20), strict=True)]
    )
    assert abs(slope - 0.02) < 3 * error
    assert 0 < error < 0.002
    assert growth(steps, [7.0] * 20) == (0.0, 0.0)


def test_the_look_would_find_one() -> None:
    """Voxels that somebody keeps are seen by their coordinate manager."""
    from ditr.data.batch import Batch
    from ditr.model.sparse import voxelise

    shared = live_sparse_objects()
    voxels = voxelise(
        Batch(samples=(samples(1, points=300, augmented=False)[0],)), voxel_size_m=0.05, engine="minkowski"
    )
    assert len(live_sparse_objects()) > len(shared)
    del voxels
    assert live_sparse_objects() == shared
