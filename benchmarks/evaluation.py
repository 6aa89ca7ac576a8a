"""How long the evaluation of a whole validation split takes.

    python -m benchmarks.evaluation [--frames 96] [--variants triton:float16 ...] [--arms 3d_only] [--batch 16]
        [--workers 6] [--device cuda] [--out evaluation.json]

``ditr.evaluation.evaluate.evaluate`` with reading, post-processing and matching, as a run calls it at its end, on
generated rooms of 20,000 points and a model with random weights; a pass over a few frames warms up. Seconds are also
given for the 2,780 frames of ScanNet200-SV's validation split. How many instances were predicted is said: matching
takes longer with more of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from benchmarks.frames import generated_frames
from benchmarks.subject import Arm, Training, Variant, add_arguments, machine, possible
from ditr.data.scannet_sv import FrameSet
from ditr.evaluation.evaluate import Evaluation, evaluate

OF_SCANNET200_SV = 2_780
"""Frames of its validation split."""
WARM_UP = 32
"""Frames."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of an arm in a variant."""

    arm: str
    variant: str
    frames: int
    wall_s: float
    """All of it, starting of processes that read frames included."""
    infer_ms: float
    """As a run reports it: a frame's share of its batch's time, reading and matching apart."""
    predictions: float
    """A frame."""
    peak_mem_mb: float
    memory_of: str

    @property
    def of_scannet200_sv_s(self) -> float:
        return self.wall_s / self.frames * OF_SCANNET200_SV


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--frames", type=int, default=96)
    arguments = parser.parse_args()
    device: torch.device = arguments.device
    print(
        f"{machine(device)}, torch {torch.__version__}, batch {arguments.batch}, {arguments.workers} workers",
        flush=True,
    )
    costs: list[Cost] = []
    variants = possible(arguments.variants, device=device)
    with tempfile.TemporaryDirectory() as folder:
        frames = generated_frames(Path(folder) / "rooms", count=arguments.frames, workers=arguments.workers)
        for name in arguments.arms:
            arm = Arm.of(name, frames, specs=arguments.specs, overrides=arguments.overrides, device=device)
            for variant in variants:
                cost = measure(arm, variant, size=arguments.batch, workers=arguments.workers, device=device)
                costs.append(cost)
                print(
                    f"{cost.arm}, {cost.variant}: {cost.frames} frames in {cost.wall_s:.1f} s, {OF_SCANNET200_SV:,}"
                    f" would take {cost.of_scannet200_sv_s:.0f} s; {cost.infer_ms:.1f} ms a frame on the device,"
                    f" {cost.predictions:.0f} predictions, {cost.peak_mem_mb:,.0f} MiB ({cost.memory_of})",
                    flush=True,
                )
    if arguments.out is not None:
        setting = {"machine": machine(device), "torch": torch.__version__}
        setting |= {"batch": arguments.batch, "workers": arguments.workers}
        found = [asdict(cost) | {"of_scannet200_sv_s": cost.of_scannet200_sv_s} for cost in costs]
        arguments.out.write_text(json.dumps(setting | {"costs": found}, indent=1))


def measure(arm: Arm, variant: Variant, *, size: int, workers: int, device: torch.device) -> Cost:
    """The cost of the arm in the variant."""
    training = Training(arm, variant, device=device)

    def evaluated(frames: FrameSet) -> Evaluation:
        return evaluate(
            training.model,
            replace(arm, frames=frames).samples(augmented=False),
            spec=arm.spec.evaluation,
            device=device,
            encode=arm.inputs.encode,
            workers=workers,
            batch_size=size,
            precision=variant.precision,
            facts=True,
            esam_compat=arm.spec.esam_compat,
        )

    evaluated(arm.frames.without(arm.frames.ids[WARM_UP:]))
    began = time.perf_counter()
    found = evaluated(arm.frames)
    return Cost(
        arm=arm.name,
        variant=str(variant),
        frames=len(found.frames),
        wall_s=time.perf_counter() - began,
        infer_ms=found.infer_ms,
        predictions=found.statistics["n_pred"],
        peak_mem_mb=found.peak_mem_mb,
        memory_of=found.memory_of,
    )


if __name__ == "__main__":
    main()
