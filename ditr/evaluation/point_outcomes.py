"""Point by point, where predictions are right about the ground truth, and where they are not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import isfinite

import numpy as np

from ditr.data.frame_view import FrameView

SHOWN_OF_NONE = 8
"""Predictions of a frame in pictures of a run of which none is right about anything."""


class PointOutcome(IntEnum):
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
    """(N,) of ``PointOutcome``."""
    total: int
    """G."""
    found: int
    """Instances that a prediction is right about."""
    shown: int
    """Predictions that count: the first so many."""
    labelled: bool
    """Whether there is any ground truth to be right about."""

    def share(self, outcome: PointOutcome) -> float:
        """Of all points."""
        return float((self.outcome == outcome).mean())


def point_outcomes(view: FrameView, *, min_score: float) -> PointOutcomes:
    """Of a view with a prediction: against its ground truth, the predicted instances below ``min_score`` left out.

    Where the best prediction of a point is left out, so are its others.
    """
    truth, predicted = view.instance_of_point, view.predicted
    counts = predicted.scores >= min_score
    covered = np.where(np.append(counts, False)[predicted.of_point], predicted.of_point, -1)
    matched = np.append(predicted.partner, -1)[covered]
    of_instance = truth >= 0
    right = of_instance & (matched == truth)
    outcome = np.select(
        [right, of_instance, covered >= 0],
        [PointOutcome.RIGHT, PointOutcome.MISSED, PointOutcome.ON_VOID],
        PointOutcome.NOTHING,
    )
    return PointOutcomes(
        truth=truth,
        predicted=covered,
        matched=matched,
        outcome=outcome,
        total=int(truth.max(initial=-1)) + 1,
        found=len(set(predicted.partner[counts].tolist()) - {-1}),
        shown=int(counts.sum()),
        labelled=view.labelled,
    )


def least_shown(scores: np.ndarray, *, best_score: float) -> float:
    """The score from which on pictures show a frame's predictions, by their scores (K,), best first.

    ``best_score`` is that from which on the run's precision and recall are in best balance. It is inf if nothing of the
    run matches anything; the frame's best are shown then.
    """
    return best_score if isfinite(best_score) else float(scores[:SHOWN_OF_NONE].min(initial=1))
