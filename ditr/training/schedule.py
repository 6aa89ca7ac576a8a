"""The learning rate, constant within an epoch."""

from __future__ import annotations

import math

from ditr.spec.models import PolyDecay, ScheduleSpec


def learning_rate(spec: ScheduleSpec, epoch: int, *, esam_compat: bool = False) -> float:
    """The learning rate of an epoch, counted from 0.

    Polynomial decay would reach ``final`` after the last epoch, so that each of them trains. With ``esam_compat`` it
    does in the last epoch: with ESAM's final of 0 that one moves only the running statistics of batch norms
    (docs/reference/esam.md, Schedule). A run of one epoch trains at the initial rate either way.
    """
    if not 0 <= epoch < spec.epochs:
        raise ValueError(f"epoch {epoch} is outside 0..{spec.epochs - 1}")
    if isinstance(spec.decay, PolyDecay) and epoch > 0:
        steps = spec.epochs - 1 if esam_compat else spec.epochs
        left = math.pow(1 - epoch / steps, spec.decay.power)
        return spec.decay.final + (spec.learning_rate - spec.decay.final) * left
    return spec.learning_rate
