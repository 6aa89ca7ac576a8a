"""A contrast: one arm held against another, by the metric of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from ditr.evaluation.looks import Look
from ditr.evaluation.statistics import Difference


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How much better one arm is than another."""

    label: str
    """Of the arm that is looked at."""
    reference: str
    """Of the arm that it is held against."""
    difference: Difference
    p_holm: float
    """The difference's p, corrected for all contrasts of the comparison."""
    permutation_p: float
    """Of exchanging the two arms' outcomes scene by scene."""
    look: Look | None = None
    """The last look at it, for which p and the interval account with those before; None where seeds are not added."""
