"""The learning rate, constant within an epoch."""

from __future__ import annotations

import math

from ditr.spec.models import PolyDecay, ScheduleSpec


def learning_rate(spec: ScheduleSpec, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0.

    Polynomial decay reaches ``final`` in the last epoch, not after it: with ESAM's final of 0 the last epoch moves only
    the running statistics of batch norms (reference: ESAM section 6). A run of one epoch trains at the initial rate.
    """
    if not 0 <= epoch < spec.epochs:
        raise ValueError(f"epoch {epoch} is outside 0..{spec.epochs - 1}")
    if isinstance(spec.decay, PolyDecay) and spec.epochs > 1:
        left = math.pow(1 - epoch / (spec.epochs - 1), spec.decay.power)
        return spec.decay.final + (spec.learning_rate - spec.decay.final) * left
    return spec.learning_rate
