"""The two questions of the study, answered in a sentence each with the evidence, or said to be open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ditr.evaluation.resampling import Metric
from ditr.evaluation.statistics import ALPHA, FEWEST_SEEDS, Difference
from ditr.record.metrics import LABELS
from ditr.report.contrast import Contrast
from ditr.report.roles import IN_WORDS, Role

Verdict = Literal["yes", "no", "not decided"]
UNKNOWN = "unknown"
QUESTIONS = (
    "Does fusing 2D features beat 3D only?",
    "Does multi-scale injection beat the single-scale gate?",
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A question, its answer and why."""

    question: str
    verdict: Verdict
    evidence: tuple[str, ...]
    """A sentence for each contrast that bears on it, and what is missing."""


def answers(contrasts: Sequence[Contrast], *, roles: Mapping[str, Role], metric: Metric) -> tuple[Answer, ...]:
    """Both questions, whatever arms are there.

    The first is about every real fusion against 3D only; a control that gains too takes a "yes" back, for then it is
    not the features' information that helps. The second is about injection without the gate against the gate alone.

    Parameters
    ----------
    roles: of every arm, by its label.
    """
    three_d = [contrast for contrast in contrasts if roles[contrast.reference] == "3d_only"]
    real = [contrast for contrast in three_d if roles[contrast.label] not in ("3d_only", "control")]
    controls = [contrast for contrast in three_d if roles[contrast.label] == "control"]
    scales = [c for c in contrasts if (roles[c.label], roles[c.reference]) == ("multi_scale", "single_scale")]
    return (_first(real, controls, metric=metric), _second(scales, metric=metric))


def verdict(contrast: Contrast) -> Verdict:
    """Decided only with enough seeds on both sides and a corrected p below ``ALPHA``; "no" is a loss."""
    found = contrast.difference
    if min(found.num_seeds) < FEWEST_SEEDS or not contrast.p_holm < ALPHA:
        return "not decided"
    return "yes" if found.value > 0 else "no"


def sentence(contrast: Contrast, *, metric: Metric) -> str:
    """One contrast in words and numbers."""
    found = contrast.difference
    counts = found.num_seeds
    seeds = f"{_counted(counts[0], 'seed')} each" if counts[0] == counts[1] else f"{counts[1]} and {counts[0]} seeds"
    text = (
        f"{contrast.label} is {found.value:+.3f} {metric_name(metric)} from {contrast.reference}"
        f" (95 % interval {interval_text(found)}, p {p_text(contrast.p_holm)} after Holm's correction,"
        f" {seeds}, {_counted(found.num_scenes, 'scene')})"
    )
    if min(counts) < FEWEST_SEEDS:
        return f"{text}; {FEWEST_SEEDS} seeds are needed to decide."
    if verdict(contrast) == "not decided":
        if math.isnan(found.se):
            return f"{text}; one scene does not say how others would differ."
        return f"{text}; effects below {found.minimum_detectable:.3f} would mostly be missed with this data."
    return f"{text}."


def metric_name(metric: Metric) -> str:
    """As papers write it."""
    return LABELS[metric]


def interval_text(found: Difference) -> str:
    """Such as +0.012 to +0.340; unknown where there is one scene."""
    return UNKNOWN if math.isnan(found.se) else f"{found.low:+.3f} to {found.high:+.3f}"


def p_text(p: float) -> str:
    """Such as 0.031, or < 0.001; unknown where there is one scene."""
    if math.isnan(p):
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def detectable_text(found: Difference) -> str:
    """Such as 0.049; unknown where there is one scene."""
    return UNKNOWN if math.isnan(found.se) else f"{found.minimum_detectable:.3f}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _first(real: Sequence[Contrast], controls: Sequence[Contrast], *, metric: Metric) -> Answer:
    if not real:
        missing = "It needs a 3D-only arm and one with fusion."
        return Answer(question=QUESTIONS[0], verdict="not decided", evidence=(missing,))
    evidence = [sentence(contrast, metric=metric) for contrast in real]
    found = _joint([verdict(contrast) for contrast in real])
    gaining = [contrast for contrast in controls if verdict(contrast) == "yes"]
    if gaining and found == "yes":
        best = max(contrast.difference.value for contrast in real)
        most = max(gaining, key=lambda contrast: contrast.difference.value)
        evidence.append(
            f"But {most.label}, whose features tell nothing of their image, gains {most.difference.value:+.3f} too:"
            f" of the best arm's {best:+.3f} that much is not due to what the images show."
        )
        if most.difference.value >= best / 2:
            found = "not decided"
    elif controls:
        each = ", ".join(f"{contrast.label} {contrast.difference.value:+.3f}" for contrast in controls)
        evidence.append(f"Controls without information against 3D only: {each}.")
    return Answer(question=QUESTIONS[0], verdict=found, evidence=tuple(evidence))


def _second(scales: Sequence[Contrast], *, metric: Metric) -> Answer:
    if not scales:
        needed = f"It needs an arm of {IN_WORDS['multi_scale']} without the gate, and one of the gate alone."
        return Answer(question=QUESTIONS[1], verdict="not decided", evidence=(needed,))
    evidence = tuple(sentence(contrast, metric=metric) for contrast in scales)
    return Answer(question=QUESTIONS[1], verdict=_joint([verdict(c) for c in scales]), evidence=evidence)


def _joint(verdicts: Sequence[Verdict]) -> Verdict:
    """One arm that gains is a yes; all that lose are a no."""
    if "yes" in verdicts:
        return "yes"
    return "no" if all(found == "no" for found in verdicts) else "not decided"
