"""What looking while seeds are added promises, and how many seeds a difference is said to need: by simulated studies.

A study's models find a share of the instances of each scene, so that AP50 is the mean of these shares, and the truth is
known. Runs are drawn as by the command: the same functions, look by look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from ditr.evaluation.looks import Look, difference_by_looks, looks
from ditr.evaluation.match_table import FrameMatches, MatchTable
from ditr.evaluation.resampling import Metric, Scored
from ditr.evaluation.statistics import ALPHA, TrainingVariances, Variances, difference, holm
from ditr.evaluation.study_size import detectable, scenes_for, seeds_for

EMPTY = np.zeros(0, dtype=np.int64)
RESAMPLES = 60
MOST = 7


@dataclass(frozen=True)
class Shares(Scored):
    """An arm whose seeds find ``found[seed, scene]`` of the instances, as many in every scene: AP is their mean."""

    found: np.ndarray = field(kw_only=True)

    def weighted(self, metric: Metric, times: np.ndarray) -> np.ndarray:
        return np.asarray(self.found[: len(self.tables)] @ times / times.sum(axis=0))


@dataclass(frozen=True)
class World:
    """Standard deviations of what makes the share of instances that a training finds in a scene."""

    effect: float = 0.0
    training: float = 0.03
    gain: float = 0.05
    """Of a scene, by the arm."""
    meeting: float = 0.06
    """Of a training in a scene."""
    scenes: int = 20

    def arms(self, rng: np.random.Generator, *, seeds: int, count: int = 2) -> list[Shares]:
        """The first has no effect."""
        nothing = {name: EMPTY for name in FrameMatches.__dataclass_fields__ if name != "frame_id"}
        frames = [FrameMatches(frame_id=f"scene{scene:04d}_00_0", **nothing) for scene in range(self.scenes)]
        tables = [MatchTable(frames, min_points=1)] * seeds
        of_scene = rng.normal(0.5, 0.1, self.scenes)
        return [
            Shares(
                tables,
                found=of_scene
                + (self.effect if arm else 0)
                + rng.normal(0, self.gain / 2**0.5, self.scenes)
                + rng.normal(0, self.training, (seeds, 1))
                + rng.normal(0, self.meeting, (seeds, self.scenes)),
            )
            for arm in range(count)
        ]


def test_looks_are_fixed_by_the_most_seeds_and_spend_all_of_the_error() -> None:
    assert [look.seeds for look in looks(9)] == [3, 5, 7, 9]
    assert [look.seeds for look in looks(10)] == [3, 5, 7, 9, 10]
    assert looks(3) == (Look(number=1, of=1, seeds=3, share=1.0),)
    assert [look.share for look in looks(9)] == pytest.approx([9 / 81, 16 / 81, 24 / 81, 32 / 81])
    assert all(sum(look.share for look in looks(most)) == pytest.approx(1) for most in range(3, 40))


def test_a_difference_is_that_of_the_last_look_and_its_p_the_least_of_all() -> None:
    one, other = World(effect=0.05).arms(np.random.default_rng(1), seeds=8)
    found, look = difference_by_looks(one, other, metric="ap50", max_seeds=9, resamples=RESAMPLES)
    each = [difference(one.first(n), other.first(n), metric="ap50", resamples=RESAMPLES) for n in (3, 5, 7)]
    assert (look.number, look.of, found.num_seeds, found.value) == (3, 4, (7, 7), each[-1].value)
    assert found.p == pytest.approx(min(each[0].p * 81 / 9, each[1].p * 81 / 16, each[2].p * 81 / 24))
    again = Shares(one.tables[:7], found=one.found[:7])
    assert each[-1] == difference(again, other.first(7), metric="ap50", resamples=RESAMPLES), "drawn once for all"
    assert found.low < each[-1].low < each[-1].high < found.high


def decided(arms: Sequence[Shares], p_of: Callable[[Scored, Scored], float]) -> bool:
    """Whether any arm is told from the first, corrected for all of them."""
    return min(holm([p_of(arms[0], arm) for arm in arms[1:]])) < ALPHA


def by_looks(one: Scored, other: Scored) -> float:
    return difference_by_looks(one, other, metric="ap50", max_seeds=MOST, resamples=RESAMPLES)[0].p


def uncorrected(one: Scored, other: Scored) -> float:
    """As who stops at the first look whose p is small."""
    each = [(one.first(look.seeds), other.first(look.seeds)) for look in looks(MOST)]
    return min(difference(*arms, metric="ap50", resamples=RESAMPLES).p for arms in each)


def test_looking_decides_where_there_is_nothing_no_more_often_than_allowed() -> None:
    """Of 300 studies with three arms at most 5 % and 2.5 standard deviations of that count; uncorrected far more."""
    rng = np.random.default_rng(3)
    studies = [World().arms(rng, seeds=MOST, count=3) for _ in range(300)]
    most = ALPHA + 2.5 * (ALPHA * (1 - ALPHA) / len(studies)) ** 0.5
    assert np.mean([decided(arms, by_looks) for arms in studies]) <= most
    assert np.mean([decided(arms, uncorrected) for arms in studies]) > most


def test_what_is_decided_at_a_look_stays_so() -> None:
    one, other = World(effect=0.03).arms(np.random.default_rng(5), seeds=MOST)
    p = [by_looks(one.first(n), other.first(n)) for n in range(3, MOST + 1)]
    assert p == sorted(p, reverse=True)


def test_the_detectable_difference_of_other_sizes_is_that_of_the_study_at_its_own() -> None:
    one, other = World().arms(np.random.default_rng(7), seeds=6)
    found = difference(one, other, metric="ap50", resamples=400)
    assert detectable(found.variances, scenes=20, seeds=6) == pytest.approx(found.minimum_detectable, rel=1e-6)


def test_the_seeds_that_a_difference_is_said_to_need_find_it_in_80_of_100_studies() -> None:
    """By what the world's own variances are, and by what one study of many seeds estimates of them."""
    world = World(effect=0.05)
    pilot = difference(*world.arms(np.random.default_rng(11), seeds=30), metric="ap50", resamples=200).variances
    assert pilot.gains == pytest.approx(world.gain**2, rel=0.6)
    assert pilot.arms[0]
    assert pilot.arms[0].in_all == pytest.approx(world.training**2, rel=0.6)
    assert pilot.arms[0].in_scenes == pytest.approx(world.meeting**2, rel=0.3)
    arm = TrainingVariances(in_scenes=world.meeting**2, in_all=world.training**2)
    true = Variances(gains=world.gain**2, arms=(arm, arm))
    seeds = seeds_for(world.effect, true, scenes=world.scenes)
    assert seeds is not None
    assert detectable(true, scenes=world.scenes, seeds=seeds - 1) > world.effect
    assert scenes_for(world.effect, true, seeds=seeds) == pytest.approx(world.scenes, abs=3)
    assert seeds_for(world.effect, true, scenes=4) is None, "more seeds do not stand in for scenes"
    rng = np.random.default_rng(12)
    studies = [difference(*world.arms(rng, seeds=seeds), metric="ap50", resamples=RESAMPLES) for _ in range(400)]
    assert np.mean([found.p < ALPHA for found in studies]) == pytest.approx(0.8, abs=0.06)
