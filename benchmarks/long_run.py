"""A long stretch of training, fed by its own loader: whether memory stays flat, and whether the loader keeps up."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import torch

from benchmarks.subject import Arm, Training, Variant, wait_for
from ditr.data.loading import batches

LOOKS = 10


@dataclass(frozen=True, kw_only=True)
class Look:
    """At the end of a tenth of the steps."""

    steps: int
    in_use_mb: float
    """MiB that all that runs there holds on the GPU, now."""
    peak_tensors_mb: float
    """Most MiB of torch's tensors in this tenth."""
    step_ms: float
    """Mean of this tenth, waiting for data included."""
    loss: float

    def __str__(self) -> str:
        return (
            f"{self.steps:6d} steps: {self.in_use_mb:,.0f} MiB in use, tensors at most {self.peak_tensors_mb:,.0f};"
            f" {self.step_ms:.1f} ms a step, loss {self.loss:.3f}"
        )


def long_run(arm: Arm, variant: Variant, *, steps: int, size: int, workers: int, device: torch.device) -> list[Look]:
    """Every batch is another one; each look is printed."""
    training, samples = Training(arm, variant, device=device), arm.samples(augmented=True)
    epochs = -(-steps // -(-len(samples) // size))
    feed = batches(samples, batch_size=size, shuffle=True, workers=workers, epochs=epochs, pinned=True)
    every, looks = max(steps // LOOKS, 1), list[Look]()
    print(f"\n{arm.name}, {variant}: {steps} steps", flush=True)
    with closing(feed):
        began = time.perf_counter()
        for number, batch in enumerate(islice(feed, steps), start=1):
            torch.manual_seed(number)
            loss = training.step(batch).loss
            if number % every:
                continue
            wait_for(device)
            ended = time.perf_counter()
            free, total = torch.cuda.mem_get_info(device)
            look = Look(
                steps=number,
                in_use_mb=(total - free) / 2**20,
                peak_tensors_mb=torch.cuda.max_memory_allocated(device) / 2**20,
                step_ms=1e3 * (ended - began) / every,
                loss=float(loss),
            )
            looks.append(look)
            print(f"  {look}", flush=True)
            torch.cuda.reset_peak_memory_stats(device)
            began = time.perf_counter()
    return looks
