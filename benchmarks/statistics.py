"""How long a difference between two arms takes at ScanNet200-SV's size: 2,780 frames of 312 scenes, three seeds each.

    python -m benchmarks.statistics [--resamples 1000] [--predictions 30]

Match tables are random: 7 ground-truth instances a frame, predictions of any quality and score.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from ditr.evaluation.match_table import FrameMatches, MatchTable
from ditr.evaluation.resampling import Metric, Scored
from ditr.evaluation.statistics import difference, permutation_p

FRAMES, SCENES, INSTANCES, POINTS = 2780, 312, 7, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--predictions", type=int, default=30, help="of a frame")
    options = parser.parse_args()
    if options.predictions < INSTANCES:
        parser.error(f"--predictions: at least {INSTANCES}, one for each instance of a frame")
    arms = [[random_table(options.predictions, seed=10 * arm + seed) for seed in range(3)] for arm in range(2)]
    metrics: tuple[Metric, ...] = ("ap50", "ap")
    print(
        f"{FRAMES} frames, {SCENES} scenes, 3 seeds, {options.predictions} predictions a frame, {os.cpu_count()} cores"
    )
    for metric in metrics:
        first, second = (Scored(tables) for tables in arms)
        began = time.perf_counter()
        first.values(metric)
        second.values(metric)
        matched = time.perf_counter()
        times = np.random.default_rng(0).multinomial(SCENES, np.full(SCENES, 1 / SCENES), size=options.resamples).T
        first.weighted(metric, times)
        second.weighted(metric, times)
        drawn = time.perf_counter()
        difference(first, second, metric=metric, resamples=options.resamples)
        permutation_p(first, second, metric=metric, resamples=options.resamples)
        ended = time.perf_counter()
        print(
            f"{metric}: matching {matched - began:.1f} s, bootstrap of both arms ({options.resamples} resamples)"
            f" {drawn - matched:.1f} s, difference() and permutation_p() {ended - drawn:.1f} s"
        )


def random_table(predictions: int, *, seed: int) -> MatchTable:
    """Each ground-truth instance is met by one prediction of random overlap; the others are on void."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(FRAMES):
        met = np.arange(INSTANCES)
        shared = np.zeros(predictions, dtype=np.int64)
        shared[:INSTANCES] = rng.integers(1, POINTS, INSTANCES)
        frames.append(
            FrameMatches(
                frame_id=f"scene{index % SCENES:04d}_00_{index // SCENES}",
                gt_sizes=np.full(INSTANCES, POINTS),
                scores=rng.random(predictions),
                sizes=np.full(predictions, POINTS),
                void=POINTS - shared,
                pair_gt=met,
                pair_pred=met,
                pair_points=shared[:INSTANCES],
            )
        )
    return MatchTable(frames, min_points=100)


if __name__ == "__main__":
    main()
