"""What a training step costs on several GPUs beside one, and whether it says the same; in one run, on the same frames.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.ranks [--arms 3d_only max_gate]
        [--variants triton:float16 triton:float32] [--batches 16 64] [--steps 20] [--out ranks.json]

One GPU takes whole batches first, while the others wait; then all take their parts of the same batches, from the same
weights. Steps are the training's own, with what its loop asks of all ranks in each; frames are generated rooms.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.frames import generated_frames
from benchmarks.subject import SPECS, Arm, Times, Training, Variant, add_arguments, in_one_piece, machine, wait_for
from ditr.data.batch import Batch
from ditr.model.moments import moment, ms_between
from ditr.ranks import ALONE, Ranks
from ditr.runner.join import join

WARM_UP = 8
"""Steps, in which kernels are compiled and graphs captured."""
LOADED_BATCHES = 2


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Of so many ranks."""

    ranks: int
    step_ms: Times
    peak_mb: float
    """Most MiB of torch's tensors on the GPU of the rank that leads."""
    losses: list[float]
    """Of the first steps."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """An arm in a variant, by one rank and by all."""

    machine: str
    torch: str
    arm: str
    variant: str
    batch: int
    alone: Pace
    together: Pace

    @property
    def gain(self) -> float:
        return self.alone.step_ms.median / self.together.step_ms.median

    def __str__(self) -> str:
        apart = [abs(a / b - 1) for a, b in zip(self.alone.losses, self.together.losses, strict=True)]
        return (
            f"{self.arm}, {self.variant}, batch {self.batch}: {self.alone.step_ms} ms alone, {self.together.step_ms} ms"
            f" on {self.together.ranks}: x {self.gain:.2f}; memory {self.alone.peak_mb:,.0f} and"
            f" {self.together.peak_mb:,.0f} MiB; losses apart by {apart[0]:.1e} in the first step, at most"
            f" {max(apart):.1e} in {len(apart)}"
        )


def main() -> None:
    with join() as ranks, tempfile.TemporaryDirectory() as own:  # before anything asks CUDA
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        add_arguments(parser)
        parser.set_defaults(arms=["3d_only"], variants=[Variant("triton", "float16")], specs=SPECS)
        parser.add_argument("--batches", type=int, nargs="+", default=[16, 64])
        parser.add_argument("--steps", type=int, default=20)
        parser.add_argument("--frames", type=int, default=16, help="generated rooms")
        arguments = parser.parse_args()
        device, found = arguments.device, list[Found]()
        folder = Path(ranks.tell(own) or own) / "rooms"
        frames = ranks.in_turn(lambda: generated_frames(folder, count=arguments.frames, workers=arguments.workers))
        for name in arguments.arms:
            arm = ranks.in_turn(
                lambda name=name: Arm.of(
                    name, frames, specs=arguments.specs, overrides=arguments.overrides, device=device
                )
            )
            for variant in arguments.variants:
                for size in arguments.batches:
                    found += measure(arm, variant, size=size, steps=arguments.steps, device=device, ranks=ranks)
                    if ranks.leads and arguments.out:
                        arguments.out.write_text(json.dumps([asdict(one) for one in found], indent=1))
        ranks.any(False)  # nobody reads the folder any more


def measure(arm: Arm, variant: Variant, *, size: int, steps: int, device: torch.device, ranks: Ranks) -> list[Found]:
    """On the rank that leads."""

    def pace(of: Ranks) -> Pace:
        return _pace(arm, variant, size=size, steps=steps, device=device, ranks=of)

    alone = ranks.in_turn(lambda: pace(ALONE) if ranks.leads else None)
    together = pace(ranks)
    if alone is None:
        return []
    found = Found(
        machine=machine(device),
        torch=str(torch.__version__),
        arm=arm.name,
        variant=str(variant),
        batch=size,
        alone=alone,
        together=together,
    )
    print(found, flush=True)
    return [found]


def _pace(arm: Arm, variant: Variant, *, size: int, steps: int, device: torch.device, ranks: Ranks) -> Pace:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    ready, part = list[Batch](), ranks.share(size)
    for number in range(LOADED_BATCHES):
        samples = arm.samples(augmented=True)
        samples.set_epoch(number)
        ready.append(in_one_piece(samples, first=number * size + part.start, size=len(part), device=device))
    training = Training(arm, variant, device=device, ranks=ranks)
    losses, ends = list[float](), [moment(device)]
    for number in range(min(WARM_UP, steps)):
        losses.append(float(training.step(ready[number % LOADED_BATCHES]).loss))
    wait_for(device)
    ends = [moment(device)]
    for number in range(steps):
        ranks.any(False), ranks.any(False)  # whether to stop, whether to fetch
        training.step(ready[number % LOADED_BATCHES])
        ends.append(moment(device))
    wait_for(device)
    return Pace(
        ranks=ranks.count,
        step_ms=Times.of([ms_between(one, other) for one, other in pairwise(ends)]),
        peak_mb=torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan"),
        losses=losses,
    )


if __name__ == "__main__":
    main()
