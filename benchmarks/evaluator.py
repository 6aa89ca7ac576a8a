"""Speed of the evaluator beside the slow transcription of the protocol, and whether it is linear in frames.

    python -m benchmarks.evaluator [--frames 500] [--instances 7] [--predictions 100] [--points 20000]

The frames are generated one at a time and never kept. Each holds so many instances of random sizes (some too small to
count), as much void as one of them, and so many predictions: noisy copies of instances, duplicates and junk on void. By
default they are as ESAM's: 18,204 instances in 2,780 validation frames, the best 100 predictions.

Both sides see the same frames in turn, so that other work on the machine slows both; CPU time is counted, generating
the frames is not. Both must agree to 1e-9 before a time is printed.
"""

from __future__ import annotations

import argparse
import resource
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ditr.evaluation.instance_ap import ESAM_THRESHOLDS, scores
from ditr.evaluation.instances import Instances
from ditr.evaluation.match_table import MatchTable
from tests.reference.slow_scannet_eval import Associated, SlowFrame, slow_association, slow_scores_of

MIN_POINTS = 100
VALIDATION_FRAMES = 2780


@dataclass(frozen=True)
class Size:
    points: int
    instances: int
    predictions: int


@dataclass
class Stopwatch:
    """CPU seconds within its ``with`` blocks."""

    seconds: float = field(default=0.0)

    def __enter__(self) -> None:
        self._start = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--instances", type=int, default=7)
    parser.add_argument("--predictions", type=int, default=100)
    parser.add_argument("--points", type=int, default=20_000)
    arguments = parser.parse_args()
    size = Size(arguments.points, arguments.instances, arguments.predictions)
    evaluate(size, count=2)  # the first call pays for imports and page faults
    compare(size, count=arguments.frames)
    for share in (4, 2, 1, 0.5):
        count = int(arguments.frames / share)
        print(f"{count:6d} frames: {1e3 * evaluate(size, count=count).seconds / count:5.2f} ms a frame")
    for count in (arguments.frames // 4, arguments.frames):
        working, kept = traced(size, count=count)
        print(f"{count:6d} frames: {working:5.2f} MiB to work in, {1024 * kept / count:5.2f} KiB kept a frame")
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    a_table_that_exists(size)


def compare(size: Size, *, count: int) -> None:
    """Both evaluators on the same frames, a frame each in turn."""
    fast, slow = Stopwatch(), Stopwatch()
    table, associated = MatchTable(min_points=MIN_POINTS), list[Associated]()
    for index, frame in enumerate(random_frames(size, count=count)):
        with fast:
            add(table, frame, index=index)
        with slow:
            associated.append(slow_association(frame, min_points=MIN_POINTS))
    with fast:
        found = scores(table, thresholds=ESAM_THRESHOLDS)
    with slow:
        expected = slow_scores_of(associated)
    np.testing.assert_allclose((found.ap, found.ap50, found.ap25), expected, atol=1e-9)
    for what, watch in (("slow transcription", slow), ("match table + AP", fast)):
        print(f"{what:>20}: {1e3 * watch.seconds / count:8.3f} ms a frame")
    print(f"ratio {slow.seconds / fast.seconds:.1f} on {count} frames, {size}")


def evaluate(size: Size, *, count: int) -> Stopwatch:
    watch = Stopwatch()
    table = MatchTable(min_points=MIN_POINTS)
    for index, frame in enumerate(random_frames(size, count=count)):
        with watch:
            add(table, frame, index=index)
    with watch:
        scores(table)
    return watch


def traced(size: Size, *, count: int) -> tuple[float, float]:
    """MiB that matching a frame needs at most for itself, and that the table has grown to in the end."""
    table = MatchTable(min_points=MIN_POINTS)
    working = 0
    tracemalloc.start()
    for index, frame in enumerate(random_frames(size, count=count)):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        add(table, frame, index=index)
        working = max(working, tracemalloc.get_traced_memory()[1] - before)
    del frame
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return working / 2**20, kept / 2**20


def a_table_that_exists(size: Size) -> None:
    """The time of AP, AP50 and AP25 of a table as long as the validation split; its frames repeat a few."""
    some = MatchTable(min_points=MIN_POINTS)
    frames = [add(some, frame, index=index) for index, frame in enumerate(random_frames(size, count=50))]
    rng = np.random.default_rng(1)
    table = MatchTable(min_points=MIN_POINTS)
    for index in range(VALIDATION_FRAMES):
        frame = vars(frames[index % 50]) | {"frame_id": str(index), "scores": rng.random(size.predictions)}
        table._frames[str(index)] = type(frames[0])(**frame)
    watch = Stopwatch()
    with watch:
        scores(table)
    print(f"AP, AP50, AP25 of a table that exists: {1e3 * watch.seconds:.0f} ms for {VALIDATION_FRAMES} frames")


def add(table: MatchTable, frame: SlowFrame, *, index: int) -> object:
    return table.add(str(index), Instances(masks=frame.masks, scores=frame.scores), frame.instance_of_point)


def random_frames(size: Size, *, count: int) -> Iterator[SlowFrame]:
    """Points in random order, as ESAM samples them."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        cuts = np.sort(rng.integers(0, size.points, size=size.instances + 1))
        truth = np.searchsorted(cuts, np.arange(size.points), side="right") - 1
        truth[truth == size.instances] = -1
        truth = rng.permutation(truth)
        of_interest = rng.integers(-1, size.instances, size=(size.predictions, 1))
        noise = rng.choice([0.0, 0.01, 0.05], size=(size.predictions, 1)).astype(np.float32)
        flipped = rng.random((size.predictions, size.points), dtype=np.float32) < noise
        confidence = np.sort(rng.random(size.predictions, dtype=np.float32))[::-1]
        yield SlowFrame((truth == of_interest) ^ flipped, confidence, truth)


if __name__ == "__main__":
    main()
