"""What a training step costs, by engine and precision, arm by arm, side by side in one process.

    python -m benchmarks.step [--variants triton:float16 minkowski:float32 ...] [--arms 3d_only mean max_gate bifusion]
        [--batch 16] [--steps 20] [--specs specs/scannet200_sv] [--set KEY=VALUE] [--device cuda] [--out step.json]
    python -m benchmarks.step --long 5000 [--variants ...] [--arms ...]

Frames are generated rooms of 20,000 points with the spec's augmentation, weights are random, stored maps are noise;
steps are the training's own, on four different batches in turn. With ``--long`` batches come from the training's
loader, and what is shown is the device memory at ten times, which should not grow. On a machine without a GPU it
measures what the CPU can do, on two frames a step unless told, and says what it left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.device_work import DeviceWork, device_work
from benchmarks.frames import generated_frames
from benchmarks.long_run import Look, long_run
from benchmarks.parts import backbone_ms, forward_ms, parts_of_step
from benchmarks.subject import (
    Arm,
    Times,
    Training,
    Variant,
    add_arguments,
    in_one_piece,
    machine,
    possible,
    wait_for,
)
from ditr.data.batch import Batch
from ditr.model.moments import moment, ms_between
from ditr.resources import memory_meter, watching

WARM_UP = 6
"""Steps, in which kernels are compiled and graphs captured."""
LOADED_BATCHES = 4
PARTS = 3
"""Times that the parts of a step are measured, after one that warms up."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of an arm in a variant."""

    arm: str
    variant: str
    parameters: int
    warm_up_s: float
    step_ms: Times
    """From the end of a step to the end of the next, nothing waiting in between: the wall clock of a training whose
    loader keeps up."""
    device: DeviceWork | None
    """On a GPU."""
    busy: float | None
    """Share of a step's time in which the GPU works."""
    allocated_mb: float | None
    """Most MiB of torch's tensors during a step; on a GPU."""
    in_use_mb: float
    """Most MiB in use during a step, and of what."""
    memory_of: str
    parts_host_ms: dict[str, float]
    """How long the host was at each part, the device waiting before it and after."""
    parts_ms: dict[str, float]
    """Until the device was done with it too."""
    backbone_ms: Times
    """Forward and backward pass of the backbone with what is injected there, voxels made before."""
    forward_ms: Times
    """One frame in evaluation, with its voxels; from when it lies on the device."""
    loss: float
    """Of the last step."""


@dataclass(kw_only=True)
class Found:
    """All that was measured so far."""

    machine: str
    torch: str
    batch: int
    steps: int
    data_ms: dict[str, float] = field(default_factory=dict)
    """Of each arm: a frame read and augmented on one core, with its stored map."""
    costs: list[Cost] = field(default_factory=list)
    long: dict[str, list[Look]] = field(default_factory=dict)

    def write(self, path: Path | None) -> None:
        """As JSON, if a file is wanted."""
        if path is not None:
            path.write_text(json.dumps(asdict(self), indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--frames", type=int, default=16, help="generated rooms")
    parser.add_argument("--long", type=int, help="so many steps of the training's loader, and the memory meanwhile")
    arguments = parser.parse_args()
    device: torch.device = arguments.device
    if arguments.long and device.type != "cuda":
        parser.error("--long is about the memory of a GPU")
    variants = possible(arguments.variants, device=device)
    size = arguments.batch if device.type == "cuda" or arguments.batch != parser.get_default("batch") else 2
    print(f"{machine(device)}, torch {torch.__version__}, batch {size}, {arguments.steps} steps", flush=True)
    if device.type == "cpu":
        print("left out: device work and memory of tensors, which are a GPU's", flush=True)
    found = Found(machine=machine(device), torch=str(torch.__version__), batch=size, steps=arguments.steps)
    with tempfile.TemporaryDirectory() as folder:
        frames = generated_frames(Path(folder) / "rooms", count=arguments.frames, workers=arguments.workers)
        for name in arguments.arms:
            arm = Arm.of(name, frames, specs=arguments.specs, overrides=arguments.overrides, device=device)
            if arguments.long:
                for variant in variants:
                    _forget(device)
                    looks = long_run(
                        arm, variant, steps=arguments.long, size=size, workers=arguments.workers, device=device
                    )
                    found.long[f"{name}, {variant}"] = looks
                    found.write(arguments.out)
                continue
            ready, found.data_ms[name] = _batches(arm, size=size, device=device)
            print(f"{name}: a frame is read and augmented in {found.data_ms[name]:.1f} ms on one core", flush=True)
            for variant in variants:
                found.costs.append(measure(arm, variant, ready, steps=arguments.steps, device=device))
                report(found.costs[-1], found.costs)
                found.write(arguments.out)


def measure(arm: Arm, variant: Variant, ready: list[Batch], *, steps: int, device: torch.device) -> Cost:
    """The cost of the arm in the variant; of its model nothing is left afterwards."""
    _forget(device)
    training = Training(arm, variant, device=device)

    def step(number: int) -> Tensor:
        torch.manual_seed(number)
        return training.step(ready[number % len(ready)]).loss

    began = time.perf_counter()
    for number in range(min(WARM_UP, steps)):
        step(number)
    wait_for(device)
    warm_up_s = time.perf_counter() - began
    step_ms, loss = _step_times(step, steps=steps, device=device)
    memory = memory_meter(device)
    with watching(memory, training.model):
        for number in range(len(ready)):
            step(number)
        wait_for(device)
    allocated = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    in_use, memory_of = memory.peak_mb(), memory.of
    work = device_work(step) if device.type == "cuda" else None
    parts = [parts_of_step(training, arm, ready[0]) for _ in range(PARTS + 1)][1:]
    return Cost(
        arm=arm.name,
        variant=str(variant),
        parameters=sum(weight.numel() for weight in training.model.parameters()),
        warm_up_s=warm_up_s,
        step_ms=step_ms,
        device=work,
        busy=None if work is None else work.occupied_ms / step_ms.median,
        allocated_mb=allocated,
        in_use_mb=in_use,
        memory_of=memory_of,
        parts_host_ms={name: min(part[name][0] for part in parts) for name in parts[0]},
        parts_ms={name: min(part[name][1] for part in parts) for name in parts[0]},
        backbone_ms=backbone_ms(training, arm, ready, repetitions=min(steps, 10)),
        forward_ms=forward_ms(training, arm, repetitions=min(steps, len(arm.frames))),
        loss=loss,
    )


def report(cost: Cost, all_costs: list[Cost]) -> None:
    """The numbers, and the step's and the memory's as multiples of the first arm's in this variant."""
    first = next(other for other in all_costs if other.variant == cost.variant)
    beside = cost.step_ms.median / first.step_ms.median, cost.in_use_mb / first.in_use_mb
    print(f"\n{cost.arm}, {cost.variant}  ({cost.parameters:,} weights, warm after {cost.warm_up_s:.0f} s)")
    print(f"  step {cost.step_ms} ms, x {beside[0]:.3f} of {first.arm}; loss {cost.loss:.3f}")
    if cost.device is not None and cost.busy is not None:
        work = cost.device
        print(
            f"  device {work.device_ms:.1f} ms a step, busy {100 * cost.busy:.0f} %, {work.kernels:.0f} kernels,",
            end="",
        )
        print(f" {work.launches:.0f} launches, {work.waits:.1f} waits")
    print(f"  memory {cost.in_use_mb:,.0f} MiB, x {beside[1]:.3f} ({cost.memory_of})", end="")
    print("" if cost.allocated_mb is None else f"; tensors {cost.allocated_mb:,.0f} MiB")
    print(f"  backbone {cost.backbone_ms} ms; one frame in evaluation {cost.forward_ms} ms")
    print("  ms of the host: " + ", ".join(f"{name} {ms:.1f}" for name, ms in cost.parts_host_ms.items()))
    print("  ms in all:      " + ", ".join(f"{name} {ms:.1f}" for name, ms in cost.parts_ms.items()), flush=True)
    for name, ms, count in cost.device.largest if cost.device is not None else ():
        print(f"    {ms:7.2f} ms {count:6.1f}  {name}", flush=True)


def _step_times(step: Callable[[int], Tensor], *, steps: int, device: torch.device) -> tuple[Times, float]:
    """Of each step, and the loss of the last."""
    ends, losses = [moment(device)], list[Tensor]()
    for number in range(steps):
        losses.append(step(number))
        ends.append(moment(device))
    return Times.of([ms_between(one, other) for one, other in pairwise(ends)]), float(losses[-1])


def _batches(arm: Arm, *, size: int, device: torch.device) -> tuple[list[Batch], float]:
    """Some batches, augmented anew in each, and the mean milliseconds that a frame took on one core."""
    samples, threads = arm.samples(augmented=True), torch.get_num_threads()
    torch.set_num_threads(1)
    made, took = [], 0.0
    for number in range(LOADED_BATCHES):
        samples.set_epoch(number)
        began = time.perf_counter()
        made.append(in_one_piece(samples, first=number * size, size=size, device=device))
        took += time.perf_counter() - began
    torch.set_num_threads(threads)
    return made, 1e3 * took / (LOADED_BATCHES * size)


def _forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


if __name__ == "__main__":
    main()
