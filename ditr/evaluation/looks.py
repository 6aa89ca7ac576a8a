"""A difference that is looked at while seeds are added, with a p and an interval that account for every look.

Who looks after 3, 5, 7 and 9 seeds and stops as soon as p is small finds differences that are not there more often than
p says. So the error that is allowed is spent over the looks: up to n of at most N seeds the share (n / N)^2 of it, the
power family of Kim and DeMets (Biometrika 74, 1987), which lies between the boundaries of Pocock and of O'Brien and
Fleming. What one look adds is its share, and its p counts divided by that. By Bonferroni's inequality the least of
these is a p, whatever looks have in common, such as scenes; and being one at every look, it can be corrected for
several differences as any other (sequential p-values: Liu and Anderson, Journal of the American Statistical
Association 103, 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ditr.evaluation.resampling import Metric, Scored
from ditr.evaluation.statistics import ALPHA, FEWEST_SEEDS, Difference, difference

_STEP = 2
"""Seeds of an arm from one look to the next."""
_POWER = 2


@dataclass(frozen=True, kw_only=True)
class Look:
    """One of the looks at a difference, which are all fixed by how many seeds there may be at most."""

    number: int
    """From 1."""
    of: int
    seeds: int
    """Of each arm."""
    share: float
    """Of the allowed error, that this look may spend; all shares sum to 1."""


def looks(max_seeds: int) -> tuple[Look, ...]:
    """After 3, 5, 7, ... and ``max_seeds`` seeds of each arm."""
    seeds = [*range(FEWEST_SEEDS, max_seeds, _STEP), max_seeds]
    spent = [0.0, *((count / max_seeds) ** _POWER for count in seeds)]
    return tuple(
        Look(number=number, of=len(seeds), seeds=count, share=after - before)
        for number, (count, (before, after)) in enumerate(zip(seeds, pairwise(spent), strict=True), start=1)
    )


def difference_by_looks(
    first: Scored, second: Scored, *, metric: Metric, max_seeds: int, resamples: int = 1000
) -> tuple[Difference, Look]:
    """The difference at the last look that both arms have seeds for, and that look.

    Its p is the least over the looks up to there, each divided by its share. Its interval is of the confidence that the
    share leaves, so that it holds the truth at every look together in 95 of 100 cases (a repeated confidence interval).
    Arms with too few seeds for the first look are looked at as they are, at its price; nothing is decided by that.

    Parameters
    ----------
    first, second: with their seeds in the order in which they were added.

    Raises
    ------
    DitrError: as ``difference`` does.
    """
    seeds, planned = min(len(first.tables), len(second.tables)), looks(max_seeds)
    done = [look for look in planned if look.seeds <= seeds] or [replace(planned[0], seeds=seeds)]
    for arm in (first, second):
        arm.resampled(metric, resamples=resamples, seed=0)  # once for all looks
    found = [
        difference(
            first.first(look.seeds),
            second.first(look.seeds),
            metric=metric,
            resamples=resamples,
            confidence=1 - ALPHA * look.share,
        )
        for look in done
    ]
    return replace(found[-1], p=_least(found, done)), done[-1]


def _least(found: Sequence[Difference], done: Sequence[Look]) -> float:
    """NaN where one is: then all are."""
    return float(np.minimum(1.0, np.min([one.p / look.share for one, look in zip(found, done, strict=True)])))
