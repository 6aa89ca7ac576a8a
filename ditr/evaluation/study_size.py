"""How many seeds and scenes a study needs to find a difference, by the variances of a smaller one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from scipy import stats

from ditr.evaluation.statistics import ALPHA, FEWEST_SEEDS, POWER, Variances, combined

MOST_SEEDS = 100
MOST_SCENES = 10_000


def detectable(variances: Variances, *, scenes: int, seeds: int, alpha: float = ALPHA) -> float:
    """The true difference that is found in 80 of 100 studies of so many scenes, and seeds of each arm.

    Parameters
    ----------
    alpha: below which p has to be: 0.05, or a part of it where several differences are tested.
    """
    se, dof = combined(variances.parts(scenes=scenes, seeds=seeds))
    return float(stats.t.ppf(1 - alpha / 2, dof) + stats.t.ppf(POWER, dof)) * se


def seeds_for(effect: float, variances: Variances, *, scenes: int, alpha: float = ALPHA) -> int | None:
    """The fewest seeds of each arm with which a difference of ``effect`` is detectable; None where 100 do not do."""
    return _fewest(
        FEWEST_SEEDS,
        MOST_SEEDS,
        lambda seeds: detectable(variances, scenes=scenes, seeds=seeds, alpha=alpha) <= effect,
    )


def scenes_for(effect: float, variances: Variances, *, seeds: int, alpha: float = ALPHA) -> int | None:
    """The fewest scenes, as ``seeds_for``; None where 10,000 do not do."""
    return _fewest(
        2, MOST_SCENES, lambda scenes: detectable(variances, scenes=scenes, seeds=seeds, alpha=alpha) <= effect
    )


def _fewest(low: int, high: int, is_enough: Callable[[int], bool]) -> int | None:
    """By bisection, for more is never worse."""
    found = bisect_left(range(low, high + 1), True, key=is_enough) + low
    return found if found <= high else None
