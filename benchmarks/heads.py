"""What pool, decoder, matching and loss cost: of the whole batch at once, and of the loop over samples that tests keep.

    python -m benchmarks.heads [--batch 16] [--steps 10] [--device cuda] [--precision float32] [--set KEY=VALUE] [SPEC]

Both in turn, in one process, on the same features of the points; the spec is ScanNet200-SV's 3D-only arm by default.
Frames have 20,000 points, 100 to 500 superpoints and up to 60 things. The loop is of float32 and gets no autocast.
On a GPU launches and waits are those that the profiler sees on the host, and memory is torch's peak beside what was
there before the step; on the CPU one thread works, as in trainings there.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.devices import add_device
from ditr.data.batch import Batch
from ditr.model.esam import EsamSingleView
from ditr.model.precision import computing_in
from ditr.spec.fusion import FusionSpec
from ditr.spec.load import load_spec
from ditr.spec.models import Precision, Spec
from ditr.spec.registry import Registry
from ditr.training.criterion import Criterion
from tests.reference.labelled_frames import labelled_frame
from tests.reference.loop_loss import LoopCriterion
from tests.reference.loop_model import loop_outputs

SPEC = Path(__file__).resolve().parents[1] / "specs" / "scannet200_sv" / "baseline.yaml"
POINTS, SUPERPOINTS, THINGS = 20_000, (100, 500), (5, 60)
WARM_UP = 3
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaMemcpyAsync", "cudaMemsetAsync")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


@dataclass(frozen=True)
class Step:
    """Of one forward and backward pass."""

    forward_ms: float
    loss_ms: float
    backward_ms: float

    @property
    def total_ms(self) -> float:
        return self.forward_ms + self.loss_ms + self.backward_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", type=Path, default=SPEC)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    add_device(parser)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    device: torch.device = arguments.device
    spec = load_spec(arguments.spec, registry=Registry(), overrides=arguments.set).spec
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    if device.type == "cpu":
        torch.set_num_threads(1)
    case = Case(spec, batch=make_batch(arguments.batch).to(device), device=device, precision=arguments.precision)
    runs: dict[str, Callable[[], Step]] = {"loop": case.loop, "batch": case.whole}
    taken: dict[str, list[Step]] = {name: [] for name in runs}
    for _ in range(WARM_UP + arguments.steps):
        for name, run in runs.items():
            taken[name].append(run())
    for name, run in runs.items():
        print(f"{name:6} {in_a_line(taken[name][WARM_UP:])}{seen_on_gpu(run) if device.type == 'cuda' else ''}")


class Case:
    """The heads of a spec's model on features of a batch's points, all of them random."""

    def __init__(self, spec: Spec, *, batch: Batch, device: torch.device, precision: Precision) -> None:
        torch.manual_seed(0)
        self.model = EsamSingleView(
            spec.model,
            fusion=FusionSpec(),
            feature_channels=None,
            sampling="bilinear",
            query_fraction=spec.loss.query_fraction,
        ).to(device)
        self.spec, self.batch, self.device, self.precision = spec, batch, device, precision
        points = sum(len(sample.xyz) for sample in batch)
        self.features = torch.randn(points, self.model.backbone.out_channels, device=device).requires_grad_()

    def whole(self) -> Step:
        def forward() -> Callable[[], Tensor]:
            with computing_in(self.precision, device=self.device):
                output = self.model._decode(self.features, self.batch)
            return lambda: Criterion(self.spec.loss)(output, self.batch).total

        return self._timed(forward)

    def loop(self) -> Step:
        def forward() -> Callable[[], Tensor]:
            outputs = loop_outputs(self.model, self.features, self.batch)
            return lambda: LoopCriterion(self.spec.loss)(outputs, self.batch).total

        return self._timed(forward)

    def _timed(self, forward: Callable[[], Callable[[], Tensor]]) -> Step:
        self.model.zero_grad()
        self.features.grad = None
        times = [self._now()]
        loss = forward()
        times.append(self._now())
        total = loss()
        times.append(self._now())
        total.backward()  # type: ignore[no-untyped-call]
        times.append(self._now())
        return Step(*(1e3 * (end - begin) for begin, end in pairwise(times)))

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def make_batch(count: int) -> Batch:
    rng = random.Random(0)
    return Batch(
        samples=tuple(
            labelled_frame(seed, points=POINTS, superpoints=rng.randint(*SUPERPOINTS), things=rng.randint(*THINGS))
            for seed in range(count)
        )
    )


def in_a_line(steps: Sequence[Step]) -> str:
    parts = ("forward_ms", "loss_ms", "backward_ms", "total_ms")
    return ", ".join(f"{part} {statistics.median(getattr(step, part) for step in steps):.1f}" for part in parts)


def seen_on_gpu(run: Callable[[], Step]) -> str:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
    names = [event.name for event in seen.events()]
    launches, waits = (sum(name.startswith(kinds) for name in names) for kinds in (LAUNCHES, WAITS))
    return f", launches {launches}, waits {waits - 4} beside the clock's, peak {peak:.0f} MiB"


if __name__ == "__main__":
    main()
