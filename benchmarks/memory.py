"""Whether memory stays flat over thousands of steps of the real training loop, with every added part on.

    python -m benchmarks.memory [--steps 5000] [--every 100] [--device cpu] [--engine triton] [--points 500]

A small model with BiFusion and injection trains on small frames that differ in every step, and is evaluated meanwhile.
Shown are the MiB that this process holds (and on a GPU those of torch's tensors and those beside torch's, where the
sparse library has its own), its threads and open files, and how many of the sparse library's objects outlive a step.
The last lines say what each of them grew by a step after the warm-up, by least squares.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import cast, get_args

import numpy as np
import psutil
import torch

from benchmarks.devices import add_device
from ditr.data.batch import as_it_is
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import FrameSet
from ditr.evaluation.evaluate import evaluate
from ditr.model.esam import EsamSingleView
from ditr.progress import silent
from ditr.spec.fusion import BiFusionSpec, FusionSpec, InjectionSpec
from ditr.spec.models import (
    AugmentationSpec,
    BackboneSpec,
    DatasetSpec,
    DecoderSpec,
    Engine,
    ExecutionSpec,
    ModelSpec,
    ScheduleSpec,
    Spec,
)
from ditr.training.fit import fit
from ditr.training.state import TrainingState
from tests.reference.synthetic_frames import CHANNELS, BoxFrames, live_sparse_objects, tokens

BATCH, STEPS_AN_EPOCH = 2, 100
FUSION = FusionSpec(bifusion=BiFusionSpec(width=16), injection=InjectionSpec())
WARM_UP = 0.2
"""Share of the steps after which caches and allocators have their size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--every", type=int, default=100, help="steps between two lines")
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="ends after so many, whatever the steps")
    parser.add_argument("--engine", choices=get_args(Engine), default="minkowski")
    add_device(parser)
    arguments = parser.parse_args()
    device: torch.device = arguments.device
    watch = Watch(device, every=arguments.every, seconds=60 * arguments.minutes)
    train(arguments.steps, points=arguments.points, engine=arguments.engine, device=device, watch=watch)
    watch.conclude()


@dataclass(frozen=True, kw_only=True)
class Held:
    """What is held at one moment; one field more a kind of leak."""

    host_mib: float
    """Resident memory of this process."""
    tensors_mib: float
    """On the GPU, of torch's tensors that are alive; 0 without one."""
    beside_mib: float
    """On the GPU, of all but what torch has reserved: the driver's, the sparse library's own."""
    threads: int
    files: int
    """Open files, sockets and pipes."""
    sparse: int
    """Objects of the sparse library that outlive a step."""

    @classmethod
    def now(cls, device: torch.device) -> Held:
        process, tensors, beside = psutil.Process(), 0, 0
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            tensors, beside = torch.cuda.memory_allocated(device), total - free - torch.cuda.memory_reserved(device)
        return cls(
            host_mib=process.memory_info().rss / 2**20,
            tensors_mib=tensors / 2**20,
            beside_mib=beside / 2**20,
            threads=process.num_threads(),
            files=process.num_fds(),
            sparse=len(live_sparse_objects()),
        )

    def __str__(self) -> str:
        on_device = f"on the GPU {self.tensors_mib:.1f} of tensors and {self.beside_mib:.1f} beside torch's, "
        counts = f"{self.threads} threads, {self.files} files, {self.sparse} sparse objects"
        return f"{self.host_mib:7.1f} MiB, {on_device if self.beside_mib else ''}{counts}"


@dataclass
class Watch:
    """A sink of metrics that looks at what is held."""

    device: torch.device
    every: int
    seconds: float = float("inf")
    """After which it wants the training to stop."""
    seen: dict[int, Held] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if "train/loss" not in metrics or step % self.every:
            return
        self.seen[step] = Held.now(self.device)
        ms = 1e3 * (time.monotonic() - self.began) / step
        print(f"{step:6d} steps: {self.seen[step]}; {ms:.0f} ms a step, loss {metrics['train/loss']:.3f}", flush=True)

    def is_over(self) -> bool:
        return time.monotonic() - self.began > self.seconds

    def conclude(self) -> None:
        last = max(self.seen)
        warm = {step: held for step, held in self.seen.items() if step >= WARM_UP * last}
        for one in fields(Held):
            values = [float(getattr(held, one.name)) for held in warm.values()]
            slope, error = growth(list(warm), values)
            unit, scale = ("KiB", 1024.0) if one.name.endswith("_mib") else (one.name, 1.0)
            print(
                f"{one.name}: {scale * slope:+.3f} {unit} a step, give or take {scale * error:.3f}; "
                f"from {values[0]:.1f} after {min(warm)} steps to {values[-1]:.1f} after {last}"
            )


def growth(steps: list[int], values: list[float]) -> tuple[float, float]:
    """Slope of a least-squares line and its standard error, as if looks were independent; both 0 of fewer than four."""
    if len(steps) < 4 or len(set(values)) == 1:
        return 0.0, 0.0
    line, covariance = np.polyfit(steps, values, 1, cov=True)
    return float(line[0]), float(np.sqrt(covariance[0, 0]))


def train(steps: int, *, points: int, engine: Engine, device: torch.device, watch: Watch) -> None:
    """At least so many steps, in whole epochs; a validation every fifth epoch."""
    epochs = max(1, round(steps / STEPS_AN_EPOCH))
    model = small_model(engine)
    held_out = samples(4, points=points, augmented=False)
    spec = Spec(
        name="memory",
        dataset=DatasetSpec(name="none"),
        fusion=FUSION,
        schedule=ScheduleSpec(epochs=epochs, batch_size=BATCH, validate_every=5),
        execution=ExecutionSpec(workers=0, engine=engine),
    )

    def validate(epochs_done: int) -> Mapping[str, float]:
        found = evaluate(model, held_out, spec=spec.evaluation, device=device, encode=as_it_is, workers=0)
        return asdict(found.scores)

    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            train=samples(BATCH * min(steps, STEPS_AN_EPOCH), points=points, augmented=True),
            spec=spec,
            seed=0,
            device=device,
            sink=watch,
            state=TrainingState(Path(folder) / "state.pt"),
            encode=as_it_is,
            validate=validate,
            progress=silent,
            should_stop=watch.is_over,
        )


def samples(count: int, *, points: int, augmented: bool) -> SampleSet:
    return SampleSet(
        cast(FrameSet, BoxFrames(count, points=points)),
        seed=0,
        voxel_size_m=0.05,
        augmentation=AugmentationSpec(elastic=None) if augmented else None,
        tokens=tokens,
    )


def small_model(engine: Engine) -> EsamSingleView:
    torch.manual_seed(0)
    return EsamSingleView(
        ModelSpec(
            voxel_size_m=0.05,
            backbone=BackboneSpec(planes=(8, 8, 16, 16, 16, 16, 8, 8), layers=(1,) * 8, stem_channels=8),
            decoder=DecoderSpec(width=32, heads=2, feedforward=32),
        ),
        fusion=FUSION,
        feature_channels=CHANNELS,
        sampling="bilinear",
        query_fraction=0.5,
        engine=engine,
    )


if __name__ == "__main__":
    main()
