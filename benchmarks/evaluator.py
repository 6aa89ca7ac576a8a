"""Speed of the evaluator beside the slow transcription of the protocol, and whether it is linear in frames.

    python -m benchmarks.evaluator [--frames 40] [--points 20000]

Each frame holds 12 instances (some small), void, and 60 predictions: noisy copies, duplicates and junk. Both sides see
the same frames and must agree to 1e-9 before a time is printed.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from ditr.evaluation.instance_ap import scores
from ditr.evaluation.instances import Instances
from ditr.evaluation.match_table import MatchTable
from tests.reference.slow_scannet_eval import SlowFrame, slow_scores

MIN_POINTS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--points", type=int, default=20_000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    frames = [random_frame(rng, points=arguments.points) for _ in range(arguments.frames)]
    fast(frames[:2])  # the first call pays for imports and page faults
    fast_s, fast_values = timed(lambda: fast(frames))
    slow_s, slow_values = timed(lambda: slow_scores(frames, min_points=MIN_POINTS))
    np.testing.assert_allclose(fast_values, slow_values, atol=1e-9)
    report("slow transcription", slow_s, frames)
    report("match table + AP", fast_s, frames)
    print(f"ratio {slow_s / fast_s:.1f}")
    table = table_of(frames)
    again_s, _ = timed(lambda: scores(table))
    print(f"AP, AP50, AP25 of a table that exists: {1e3 * again_s:.1f} ms for {len(frames)} frames")
    for repeat in (1, 2, 4, 8):
        seconds, peak_mib = streamed(frames, repeat=repeat)
        count = repeat * len(frames)
        print(f"{count:6d} frames: {1e3 * seconds / count:6.2f} ms a frame, peak {peak_mib:6.1f} MiB of new memory")


def random_frame(rng: np.random.Generator, *, points: int) -> SlowFrame:
    cuts = np.sort(rng.integers(0, points, size=13))
    truth = np.searchsorted(cuts, np.arange(points), side="right") - 1
    truth[truth == 12] = -1
    truth = rng.permutation(truth)
    of_interest = rng.integers(-1, 12, size=60)
    masks = (truth == of_interest[:, None]) ^ (rng.random((60, points)) < rng.choice([0.0, 0.01, 0.05], size=(60, 1)))
    return SlowFrame(masks, np.sort(rng.random(60, dtype=np.float32))[::-1], truth)


def table_of(frames: list[SlowFrame], *, repeat: int = 1) -> MatchTable:
    table = MatchTable(min_points=MIN_POINTS)
    for index, frame in enumerate(frames * repeat):
        table.add(f"scene_{index}", Instances(masks=frame.masks, scores=frame.scores), frame.instance_of_point)
    return table


def fast(frames: list[SlowFrame], *, repeat: int = 1) -> tuple[float, float, float]:
    found = scores(table_of(frames, repeat=repeat))
    return found.ap_to_90, found.ap50, found.ap25


def streamed(frames: list[SlowFrame], *, repeat: int) -> tuple[float, float]:
    """CPU seconds, then (apart, because tracing slows) MiB of memory that the evaluation itself needs at most."""
    seconds, _ = timed(lambda: fast(frames, repeat=repeat))
    tracemalloc.start()
    fast(frames, repeat=repeat)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak / 2**20


def timed(work: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()  # not wall time: other work on the machine does not count
    result = work()
    return time.process_time() - start, result


def report(what: str, seconds: float, frames: list[SlowFrame]) -> None:
    print(f"{what:>20}: {1e3 * seconds / len(frames):8.2f} ms a frame")


if __name__ == "__main__":
    main()
