"""Point by point, where predictions are right about the ground truth, and where they are not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Outcome(IntEnum):
    """What became of a point."""

    NOTHING = 0
    """Void, as its predictions say: there is none."""
    RIGHT = 1
    """Its best prediction is right about its instance."""
    MISSED = 2
    """It is of an instance, and its best prediction is not right about that one, or there is none."""
    ON_VOID = 3
    """It is of no instance, and a prediction covers it."""


@dataclass(frozen=True, kw_only=True)
class PointOutcomes:
    """N points, G ground-truth instances, and those of K predictions that count."""

    truth: np.ndarray
    """(N,) instance of each point, -1 = void."""
    predicted: np.ndarray
    """(N,) the best prediction that covers each point, -1 without one."""
    matched: np.ndarray
    """(N,) the instance that this prediction is right about, else -1."""
    outcome: np.ndarray
    """(N,) of ``Outcome``."""
    total: int
    """G."""
    found: int
    """Instances that a prediction is right about."""
    shown: int
    """Predictions that count: the first so many."""

    def share(self, outcome: Outcome) -> float:
        """Of all points."""
        return float((self.outcome == outcome).mean())


def point_outcomes(
    instance_of_point: np.ndarray, *, predicted: np.ndarray, partner: np.ndarray, scores: np.ndarray, min_score: float
) -> PointOutcomes:
    """Predictions against ground truth, those below ``min_score`` left out.

    Parameters
    ----------
    instance_of_point: (N,) ground truth, -1 = void.
    predicted: (N,) the best of all predictions that covers each point, -1 without one.
    partner: (K,) the instance that each prediction is right about, else -1.
    scores: (K,) best first: where the best prediction of a point is left out, so are its others.
    """
    counts = scores >= min_score
    covered = np.where(np.append(counts, False)[predicted], predicted, -1)
    matched = np.append(partner, -1)[covered]
    of_instance = instance_of_point >= 0
    right = of_instance & (matched == instance_of_point)
    outcome = np.select(
        [right, of_instance, covered >= 0], [Outcome.RIGHT, Outcome.MISSED, Outcome.ON_VOID], Outcome.NOTHING
    )
    return PointOutcomes(
        truth=instance_of_point,
        predicted=covered,
        matched=matched,
        outcome=outcome,
        total=int(instance_of_point.max(initial=-1)) + 1,
        found=len(set(partner[counts].tolist()) - {-1}),
        shown=int(counts.sum()),
    )
