"""Whether memory stays flat over thousands of steps of the real training loop, with every added part on.

    python -m benchmarks.memory [--steps 3000] [--every 100] [--device cpu]

A small model with BiFusion and injection trains on small frames that differ in every step, and is evaluated meanwhile.
Shown are the MiB that this process holds now (on a GPU: that everything on it holds, sparse library included) and how
many of the sparse library's objects outlive a step. The last line compares the end with the end of the warm-up.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

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
    ExecutionSpec,
    ModelSpec,
    ScheduleSpec,
    Spec,
)
from ditr.training.fit import fit
from ditr.training.state import TrainingState
from tests.reference.synthetic_frames import CHANNELS, BoxFrames, live_sparse_objects, tokens

BATCH, STEPS_AN_EPOCH = 2, 100
WARM_UP = 0.2
"""Share of the steps after which caches and allocators have their size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--every", type=int, default=100, help="steps between two lines")
    parser.add_argument("--points", type=int, default=500)
    add_device(parser)
    arguments = parser.parse_args()
    device: torch.device = arguments.device
    watch = Watch(device, every=arguments.every)
    train(arguments.steps, points=arguments.points, device=device, watch=watch)
    watch.conclude()


@dataclass
class Watch:
    """A sink of metrics that looks at the memory."""

    device: torch.device
    every: int
    seen: dict[int, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if "train/loss" not in metrics or step % self.every:
            return
        self.seen[step] = in_use_mb(self.device)
        torch_mb = torch.cuda.memory_reserved(self.device) / 2**20 if self.device.type == "cuda" else 0.0
        beside = f", of it torch {torch_mb:7.1f}" if torch_mb else ""
        ms = 1e3 * (time.monotonic() - self.began) / step
        print(
            f"{step:6d} steps: {self.seen[step]:8.1f} MiB{beside}; {len(live_sparse_objects())} sparse objects alive;"
            f" {ms:.0f} ms a step, loss {metrics['train/loss']:.3f}",
            flush=True,
        )

    def conclude(self) -> None:
        last = max(self.seen)
        warm = min(step for step in self.seen if step >= WARM_UP * last)
        ratio = self.seen[last] / self.seen[warm]
        most = max(mb for step, mb in self.seen.items() if step >= warm)
        print(
            f"after {last} steps {self.seen[last]:.1f} MiB, after {warm} {self.seen[warm]:.1f}: ratio {ratio:.4f}; "
            f"most since then {most:.1f}"
        )


def in_use_mb(device: torch.device) -> float:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return (total - free) / 2**20
    return float(psutil.Process().memory_info().rss) / 2**20


def train(steps: int, *, points: int, device: torch.device, watch: Watch) -> None:
    """At least so many steps, in whole epochs; a validation every fifth epoch."""
    epochs = max(1, round(steps / STEPS_AN_EPOCH))
    model = small_model()
    held_out = samples(4, points=points, augmented=False)
    spec = Spec(
        name="memory",
        dataset=DatasetSpec(name="none"),
        fusion=model.fusion,
        schedule=ScheduleSpec(epochs=epochs, batch_size=BATCH, validate_every=5),
        execution=ExecutionSpec(workers=0),
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
            should_stop=lambda: False,
        )


def samples(count: int, *, points: int, augmented: bool) -> SampleSet:
    return SampleSet(
        cast(FrameSet, BoxFrames(count, points=points)),
        seed=0,
        voxel_size_m=0.05,
        augmentation=AugmentationSpec(elastic=None) if augmented else None,
        tokens=tokens,
    )


def small_model() -> EsamSingleView:
    torch.manual_seed(0)
    return EsamSingleView(
        ModelSpec(
            voxel_size_m=0.05,
            backbone=BackboneSpec(planes=(8, 8, 16, 16, 16, 16, 8, 8), layers=(1,) * 8, stem_channels=8),
            decoder=DecoderSpec(width=32, heads=2, feedforward=32),
        ),
        fusion=FusionSpec(bifusion=BiFusionSpec(width=16), injection=InjectionSpec()),
        feature_channels=CHANNELS,
        sampling="bilinear",
        query_fraction=0.5,
    )


if __name__ == "__main__":
    main()
