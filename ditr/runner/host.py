"""What runs on a machine share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ditr.progress import Progress
from ditr.ranks import ALONE, Ranks
from ditr.record.folder import Record
from ditr.record.views.teller import Teller
from ditr.runner.stop import StopSignal
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.evaluation.evaluate import Evaluation

Draw = Callable[["Record", "Evaluation"], None]
"""Draws prediction panels and curves into the run folder; passed in, so that the runner knows no plots."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What runs on a machine share."""

    registry: Registry
    progress: Progress
    say: Callable[[str], None]
    stop: StopSignal
    draw: Draw
    teller: Teller
    """Takes records that changed."""
    ranks: Ranks = ALONE
    """That make each run together."""
