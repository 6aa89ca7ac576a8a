"""Where a run does not do what ESAM does (docs/reference/esam.md, Quirks), in words for its row of results."""

from __future__ import annotations

from ditr.spec.models import PolyDecay, Spec

ESAM_AUX_DICE = 4.0
"""ESAM divides this by the batch size of the step for the dice terms of all heads but the last."""


def esam_differences(spec: Spec, *, trained_on: int | None, evaluated: int, without_background: int) -> str:
    """The differences, each with its number in the reference, joined by "; "; empty where there is none.

    Listed is what changes a number that ESAM would give too, of this spec's own settings: another learning rate is no
    difference in this sense, nor is an input at which ESAM stops (one query, samples of unequal point counts, a first
    frame without predictions). ``Spec.esam_compat`` leaves none but Q2.

    Parameters
    ----------
    trained_on: frames of the training; None where weights were evaluated without one.
    evaluated: frames of the evaluation.
    without_background: those of them in which every point is on an instance.
    """
    logged = [] if trained_on is None else [_LOGGED]
    if spec.esam_compat:
        return "; ".join(logged)
    training = [] if trained_on is None else _of_training(spec, frames=trained_on)
    first = (
        f"Q1 no instance is lost in frames without background, {without_background} of the {evaluated} evaluated, and"
        " id 0 is no instance (ESAM: the first of each is lost, and 0 is one where its class is a thing's)"
    )
    last = "Q6 ap is the mean over 0.50 to 0.95 (ESAM: to 0.90, here ap_to_90)"
    return "; ".join([first, *logged, *training, last])


_LOGGED = "Q2 a sample without a match or a class adds 0 to the logged losses (ESAM: NaN, with these gradients)"


def _of_training(spec: Spec, *, frames: int) -> list[str]:
    found = []
    steps = {min(frames, spec.schedule.batch_size), frames % spec.schedule.batch_size} - {0}
    esam = [ESAM_AUX_DICE / samples for samples in sorted(steps, reverse=True)]
    factor = spec.loss.dice_aux
    if spec.loss.mask_dice and esam != [factor]:
        theirs = ", ".join(f"{one:g}" for one in esam[:1]) + "".join(
            f", {one:g} in an epoch's last" for one in esam[1:]
        )
        found.append(f"Q3 earlier heads' dice weighs {factor:g} in every step (ESAM: {theirs})")
    if isinstance(spec.schedule.decay, PolyDecay) and spec.schedule.epochs > 1:
        final = spec.schedule.decay.final
        found.append(
            f"Q4 the learning rate is {final:g} after the last epoch, so all but the first epoch's differ (ESAM: in it)"
        )
    return found
