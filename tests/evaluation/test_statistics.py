"""AP under scene weights against tables in which scenes really are repeated, and what intervals promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ditr.errors import DitrError
from ditr.evaluation.instance_ap import AP_THRESHOLDS, ESAM_THRESHOLDS, average_precision
from ditr.evaluation.match_table import FrameMatches, MatchTable
from ditr.evaluation.resampling import Metric, Scored
from ditr.evaluation.statistics import Difference, difference, holm, permutation_p, spread

MIN_POINTS = 10
METRICS: dict[Metric, tuple[float, ...]] = {"ap": AP_THRESHOLDS, "ap50": (0.5,), "ap25": (0.25,)}


def random_frame(rng: np.random.Generator, frame_id: str) -> FrameMatches:
    """Overlaps of any size with few distinct scores, so that scores are often equal."""
    gt, pred = int(rng.integers(0, 5)), int(rng.integers(0, 7))
    gt_sizes, sizes = rng.integers(5, 60, gt), rng.integers(5, 60, pred)
    shared = rng.integers(0, 60, (gt, pred)).clip(max=np.minimum.outer(gt_sizes, sizes))
    left = sizes.copy()
    for row in shared:  # a point of a prediction lies in one instance at most
        np.minimum(row, left, out=row)
        left -= row
    pair_gt, pair_pred = np.nonzero(shared)
    return FrameMatches(
        frame_id=frame_id,
        gt_sizes=gt_sizes,
        scores=rng.integers(1, 6, pred) / 5,
        sizes=sizes,
        void=left,
        pair_gt=pair_gt,
        pair_pred=pair_pred,
        pair_points=shared[pair_gt, pair_pred],
    )


def random_table(rng: np.random.Generator, *, scenes: int, frames: int) -> MatchTable:
    ids = [f"scene{scene:04d}_00_{frame}" for scene in range(scenes) for frame in range(frames)]
    return MatchTable([random_frame(rng, frame_id) for frame_id in ids], min_points=MIN_POINTS)


def repeated(table: MatchTable, times: dict[str, int]) -> MatchTable:
    """Every frame as often as its scene counts, under names of their own."""
    frames = [
        replace(frame, frame_id=f"{frame.frame_id}-{copy}")
        for frame in table.frames
        for copy in range(times[frame.frame_id[:12]])
    ]
    return MatchTable(frames, min_points=table.min_points)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3))
def test_weighted_ap_is_that_of_repeated_scenes(seed: int, scenes: int, frames: int) -> None:
    rng = np.random.default_rng(seed)
    table = random_table(rng, scenes=scenes, frames=frames)
    arm = Scored([table])
    times = rng.integers(0, 3, (scenes, 4))
    for metric, thresholds in METRICS.items():
        found = arm.weighted(metric, times)[0]
        for column, value in zip(times.T, found, strict=True):
            again = repeated(table, dict(zip(arm.scenes, column.tolist(), strict=True)))
            np.testing.assert_allclose(value, average_precision(again, thresholds=thresholds).mean(), atol=1e-9)


def test_esams_mean_has_nine_thresholds() -> None:
    table = random_table(np.random.default_rng(3), scenes=6, frames=3)
    expected = average_precision(table, thresholds=ESAM_THRESHOLDS).mean()
    assert Scored([table], esam_compat=True).values("ap") == pytest.approx(expected, abs=1e-9)
    assert Scored([table]).values("ap") != pytest.approx(expected, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_exchanged_scenes_are_those_of_the_other_arm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (random_table(rng, scenes=4, frames=2) for _ in range(2))
    swap = rng.random((4, 3)) < 0.5
    found = Scored([first]).exchanged(Scored([second]), "ap50", swap)[0]
    for column, value in zip(swap.T, found, strict=True):
        swapped = {f"scene{scene:04d}_00" for scene in np.flatnonzero(column)}
        mixed = [
            theirs if mine.frame_id[:12] in swapped else mine
            for mine, theirs in zip(first.frames, second.frames, strict=True)
        ]
        expected = average_precision(MatchTable(mixed, min_points=MIN_POINTS), thresholds=(0.5,))[0]
        np.testing.assert_allclose(value, expected, atol=1e-9)


def test_seeds_that_were_evaluated_on_other_frames_are_refused() -> None:
    rng = np.random.default_rng(0)
    table, longer = random_table(rng, scenes=3, frames=1), random_table(rng, scenes=4, frames=1)
    with pytest.raises(DitrError, match="1 frames are in one evaluation and not in the other, such as scene0003_00_0"):
        Scored([table, longer])
    other = MatchTable(table.frames, min_points=100)
    with pytest.raises(DitrError, match="from 10 points on, another from 100"):
        difference(Scored([table]), Scored([other]), metric="ap50")


def test_an_arm_does_not_differ_from_itself() -> None:
    rng = np.random.default_rng(1)
    arm = Scored([random_table(rng, scenes=8, frames=2) for _ in range(3)])
    found = difference(arm, arm, metric="ap50", resamples=50)
    exchanged = permutation_p(arm, arm, metric="ap50", resamples=50)
    assert (found.value, exchanged, found.se_scenes) == (0.0, 1.0, pytest.approx(0, abs=1e-9))
    assert found.p == 1.0
    assert found.low <= 0 <= found.high


def test_one_seed_says_nothing_about_other_trainings() -> None:
    rng = np.random.default_rng(2)
    one, three = ([random_table(rng, scenes=8, frames=2) for _ in range(n)] for n in (1, 3))
    found = difference(Scored(three), Scored(one), metric="ap50", resamples=50)
    assert found.se_seeds is None
    assert found.num_seeds == (3, 1)
    assert spread(Scored(one), metric="ap50").sd is None
    values = Scored(three).values("ap50")
    assert spread(Scored(three), metric="ap50").sd == pytest.approx(np.std(values, ddof=1))


def test_the_same_question_has_the_same_answer() -> None:
    rng = np.random.default_rng(4)
    arms = [Scored([random_table(rng, scenes=8, frames=2) for _ in range(3)]) for _ in range(2)]
    assert difference(*arms, metric="ap50", resamples=40) == difference(*arms, metric="ap50", resamples=40)


def test_holm_against_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.5, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()
    assert holm([math.nan, 0.01]) == pytest.approx((math.nan, 0.02), nan_ok=True)
    p = np.random.default_rng(0).random(7) ** 3
    order = np.argsort(p)
    by_hand = [max(min(1, (7 - k) * p[order[k]]) for k in range(rank + 1)) for rank in range(7)]
    assert np.array(holm(p.tolist()))[order] == pytest.approx(by_hand)


def test_the_interval_the_p_and_the_detectable_effect_fit_together() -> None:
    rng = np.random.default_rng(5)
    arms = [Scored([random_table(rng, scenes=10, frames=2) for _ in range(3)]) for _ in range(2)]
    found = difference(*arms, metric="ap50", resamples=200)
    at_p = difference(*arms, metric="ap50", resamples=200, confidence=1 - found.p)
    assert min(abs(at_p.low), abs(at_p.high)) == pytest.approx(0, abs=1e-9)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, found.dof) * found.se)
    assert found.se**2 == pytest.approx(found.se_scenes**2 + (found.se_seeds or 0) ** 2)
    # of studies with this standard error, 80 of 100 find the detectable effect: by counting
    estimates = found.minimum_detectable + found.se * np.random.default_rng(0).standard_t(found.dof, 200_000)
    limit = stats.t.ppf(0.975, found.dof) * found.se
    assert np.mean(estimates > limit) == pytest.approx(0.8, abs=0.01)


class World:
    """Arms whose true AP50 is known: an instance is found with a chance that depends on arm, training and scene.

    Nothing is predicted besides, so that AP50 is the share of instances found, and its expectation the mean chance.
    """

    def __init__(self, rng: np.random.Generator, *, effect: float, seed_sd: float, scenes: int = 30) -> None:
        self.rng, self.effect, self.seed_sd, self.scenes = rng, effect, seed_sd, scenes
        self.of_scene = rng.normal(0, 0.12, scenes)
        self.gain_of_scene = rng.normal(0, 0.05, scenes)

    def study(self, seeds: int) -> Difference:
        tables = [[self._training(arm) for _ in range(seeds)] for arm in range(2)]
        return difference(Scored(tables[0]), Scored(tables[1]), metric="ap50", resamples=100)

    def _training(self, arm: int) -> MatchTable:
        rng = self.rng
        of_training = rng.normal(0, self.seed_sd)
        chance = 0.5 + self.of_scene + of_training + arm * (self.effect + self.gain_of_scene)
        chance = (chance + rng.normal(0, 0.05, self.scenes)).clip(0.02, 0.98)
        frames = [self._frame(f"scene{scene:04d}_00_0", one) for scene, one in enumerate(chance)]
        return MatchTable(frames, min_points=MIN_POINTS)

    def _frame(self, frame_id: str, chance: float, instances: int = 12) -> FrameMatches:
        found = np.flatnonzero(self.rng.random(instances) < chance)
        pred = np.arange(len(found))
        points = np.full(len(found), 20)
        return FrameMatches(
            frame_id=frame_id,
            gt_sizes=np.full(instances, 20),
            scores=self.rng.random(len(found)),
            sizes=points,
            void=np.zeros_like(points),
            pair_gt=found,
            pair_pred=pred,
            pair_points=points,
        )


@pytest.mark.parametrize(
    ("seeds", "seed_sd", "effect"), [(3, 0.03, 0.0), (5, 0.03, 0.05), (3, 0.0, 0.0), (5, 0.06, 0.0)]
)
def test_intervals_hold_the_truth_as_often_as_they_promise(seeds: int, seed_sd: float, effect: float) -> None:
    """Each study has other scenes and other trainings; of 300, 95 % +- 3 standard deviations of that count."""
    rng = np.random.default_rng(round(1000 * seed_sd) + seeds)
    studies = [World(rng, effect=effect, seed_sd=seed_sd).study(seeds) for _ in range(300)]
    covered = np.mean([found.low <= effect <= found.high for found in studies])
    assert 0.912 <= covered <= 0.988
    if effect == 0:
        assert 0.012 <= np.mean([found.p < 0.05 for found in studies]) <= 0.088
