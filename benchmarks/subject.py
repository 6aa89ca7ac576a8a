"""What is measured: an arm's model in a variant, with the steps that a training makes of it."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from benchmarks.devices import add_device
from benchmarks.frames import noise_inputs
from ditr.data.batch import Batch
from ditr.data.block import Block
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import FrameSet
from ditr.model.prefetch import Prefetcher, share
from ditr.model.reproducible import reproducible
from ditr.model.sparse.choice import engine_lack
from ditr.ranks import ALONE, Ranks
from ditr.runner.feature_inputs import FeatureInputs, sample_set
from ditr.runner.inputs import fresh_model
from ditr.spec.load import load_spec
from ditr.spec.models import Engine, Precision, Spec
from ditr.spec.registry import Registry
from ditr.training.criterion import Criterion
from ditr.training.step import StepNumbers, train_step

SPECS = Path(__file__).resolve().parents[1] / "specs" / "scannet200_sv"
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "3d_only": ("baseline", ()),
    "mean": ("fpn_inject", ("fusion.bifusion=null", "fusion.injection.pooling=mean")),
    "max_gate": ("fpn_inject", ()),
    "bifusion": ("bifusion", ()),
}
"""The spec file of each, and what is changed in it: injection of means without the gate, of maxima with it."""
VARIANTS = ("triton:float16", "triton:bfloat16", "triton:float32", "minkowski:float32")
"""MinkowskiEngine last: what it takes beside torch's memory it keeps."""


@dataclass(frozen=True)
class Variant:
    """An engine and a precision."""

    engine: Engine
    precision: Precision

    @classmethod
    def of(cls, text: str) -> Variant:
        """Of ``engine:precision``."""
        engine, _, precision = text.partition(":")
        if engine not in get_args(Engine) or precision not in get_args(Precision):
            raise argparse.ArgumentTypeError(f"{text} is no engine:precision, such as triton:float16")
        return cls(engine, precision)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.engine}:{self.precision}"

    def lack(self, device: torch.device) -> str | None:
        """Why it cannot run on the device; None if it can."""
        lack = engine_lack(self.engine, device=device)
        return None if lack is None else lack.what


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Frames as the arm's training reads them."""

    name: str
    spec: Spec
    frames: FrameSet
    inputs: FeatureInputs

    @classmethod
    def of(cls, name: str, frames: FrameSet, *, specs: Path, overrides: Sequence[str], device: torch.device) -> Arm:
        file, changes = ARMS[name]
        spec = load_spec(specs / f"{file}.yaml", registry=Registry(), overrides=(*changes, *overrides)).spec
        return cls(name=name, spec=spec, frames=frames, inputs=noise_inputs(spec, frames, device=device))

    def samples(self, *, augmented: bool) -> SampleSet:
        return sample_set(self.frames, spec=self.spec, seed=0, features=self.inputs, augmented=augmented)

    def in_variant(self, variant: Variant) -> Spec:
        update = {"engine": variant.engine, "precision": variant.precision}
        return self.spec.model_copy(update={"execution": self.spec.execution.model_copy(update=update)})


class Training:
    """A model with random weights on a device, and its steps as ``ditr.training.fit`` makes them."""

    def __init__(self, arm: Arm, variant: Variant, *, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.device, self.variant, self.ranks = device, variant, ranks
        spec = arm.in_variant(variant)
        self.clip = spec.schedule.grad_clip_norm
        self.model = fresh_model(spec, seed=0, feature_channels=arm.inputs.channels).to(device).train()
        share(self.model, ranks)
        self._replaying = ExitStack()
        self._replaying.enter_context(self.model.replaying())
        self.criterion = Criterion(spec.loss, esam_compat=spec.esam_compat, ranks=ranks)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=spec.schedule.learning_rate,
            weight_decay=spec.schedule.weight_decay,
            fused=device.type == "cuda",
        )
        self._prefetcher = Prefetcher(device, encode=arm.inputs.encode, model=self.model)

    def step(self, batch: Batch) -> StepNumbers:
        with reproducible(self.device, engine=self.variant.engine):
            return train_step(
                self.model,
                self._prefetcher.ready(batch),
                criterion=self.criterion,
                optimizer=self.optimizer,
                clip=self.clip,
                precision=self.variant.precision,
                ranks=self.ranks,
            )


@dataclass(frozen=True)
class Times:
    """Milliseconds, over the repetitions of something."""

    median: float
    low: float
    high: float
    """A tenth of them is below, a tenth above."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Times:
        low, high = np.quantile(values, (0.1, 0.9)).tolist()
        return cls(statistics.median(values), low, high)

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.low:.1f} to {self.high:.1f})"


def in_one_piece(samples: SampleSet, *, first: int, size: int, device: torch.device) -> Batch:
    """Samples from ``first`` on, as the training's loader hands them over."""
    block = Block.of([samples[index % len(samples)] for index in range(first, first + size)])
    return Batch.of(block.pin_memory() if device.type == "cuda" else block)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the benchmarks of steps and of evaluation share."""
    parser.add_argument("--variants", type=Variant.of, nargs="+", default=[Variant.of(text) for text in VARIANTS])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--specs", type=Path, default=SPECS, help="folder of the arms' spec files")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="field of every spec=its value")
    parser.add_argument("--batch", type=int, default=16, help="frames a step")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count(), help="processes that read frames")
    add_device(parser)
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")


def possible(variants: Sequence[Variant], *, device: torch.device) -> list[Variant]:
    """Those that can run there; of the others it is said why not."""
    for variant in variants:
        if lack := variant.lack(device):
            print(f"left out: {variant}, {lack}", flush=True)
    return [variant for variant in variants if variant.lack(device) is None]


def machine(device: torch.device) -> str:
    """Its name, for the record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
