"""Arms beside each other: mean and spread over seeds, paired differences, cost, and the two questions answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import get_args

from ditr.evaluation.looks import Look, difference_by_looks
from ditr.evaluation.resampling import Metric, Scored
from ditr.evaluation.statistics import FEWEST_SEEDS, Difference, Spread, difference, holm, permutation_p, spread
from ditr.record.metrics import COSTS
from ditr.report.answers import Answer, answers
from ditr.report.arms import Arm, Arms
from ditr.report.comparability import caveats
from ditr.report.contrast import Contrast
from ditr.report.roles import Role, role


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm over its seeds."""

    arm: Arm
    role: Role
    spreads: Mapping[Metric, Spread]
    costs: Mapping[str, float | None]
    """Mean over seeds by name in ``COSTS``; None where a run has no such number."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What ``ditr compare`` says."""

    metric: Metric
    arms: tuple[ArmSummary, ...]
    contrasts: tuple[Contrast, ...]
    """Each arm against the first 3D-only one, then each multi-scale arm against each single-scale one."""
    answers: tuple[Answer, ...]
    caveats: tuple[str, ...]

    @property
    def reference(self) -> Arm:
        """The arm that all others are held against."""
        return _reference(self.arms).arm

    @property
    def best(self) -> str | None:
        """Label of the arm with the highest mean; None where an arm has fewer than ``FEWEST_SEEDS``."""
        if len(self.arms) < 2 or min(summary.spreads[self.metric].n for summary in self.arms) < FEWEST_SEEDS:
            return None
        return max(self.arms, key=lambda summary: summary.spreads[self.metric].mean).arm.label

    def summary(self, label: str) -> ArmSummary:
        """Of the arm called so."""
        return next(summary for summary in self.arms if summary.arm.label == label)


def compare(arms: Arms, *, metric: Metric, allow: Sequence[str] = (), resamples: int = 1000) -> Comparison:
    """Compares arms that differ in their fusion, or in the 2D features that it reads, alone.

    Parameters
    ----------
    allow: fields besides the fusion that may differ; each is said in the caveats.
    resamples: of the bootstrap and of the permutation test.

    Raises
    ------
    DitrError: there are none, they differ in something else, or were not evaluated on the same frames.
    """
    arms.require_some()
    unlike = caveats(arms.found, allow=allow)
    scored = {arm.label: Scored(arm.tables, esam_compat=arm.spec.esam_compat) for arm in arms.found}
    summaries = tuple(_summary(arm, scored[arm.label]) for arm in arms.found)
    pairs = _pairs(summaries)
    most = {arm.label: arm.max_seeds for arm in arms.found}
    found = [
        _difference(scored[one], scored[other], metric, max_seeds=(*most[one], *most[other]), resamples=resamples)
        for one, other in pairs
    ]
    corrected = holm([each.p for each, _ in found])
    contrasts = tuple(
        Contrast(
            label=other,
            reference=one,
            difference=each,
            p_holm=p,
            look=look,
            permutation_p=permutation_p(scored[one], scored[other], metric=metric, resamples=resamples),
        )
        for (one, other), (each, look), p in zip(pairs, found, corrected, strict=True)
    )
    return Comparison(
        metric=metric,
        arms=summaries,
        contrasts=contrasts,
        answers=answers(contrasts, roles={one.arm.label: one.role for one in summaries}, metric=metric),
        caveats=(*unlike, *_looks(contrasts), *_gaps(arms.found), *arms.left_out),
    )


def _difference(
    first: Scored, second: Scored, metric: Metric, *, max_seeds: Sequence[int], resamples: int
) -> tuple[Difference, Look | None]:
    if not max_seeds:
        return difference(first, second, metric=metric, resamples=resamples), None
    return difference_by_looks(first, second, metric=metric, max_seeds=max(max_seeds), resamples=resamples)


def _summary(arm: Arm, scored: Scored) -> ArmSummary:
    return ArmSummary(
        arm=arm,
        role=role(arm.spec),
        spreads={metric: spread(scored, metric=metric) for metric in get_args(Metric)},
        costs={name: _mean([run.result.get(name) for run in arm.runs]) for name in COSTS},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _pairs(summaries: Sequence[ArmSummary]) -> list[tuple[str, str]]:
    """(reference, looked at) of every contrast."""
    labels = {summary.arm.label: summary.role for summary in summaries}
    reference = _reference(summaries).arm.label
    pairs = [(reference, label) for label in labels if label != reference]
    single = [label for label, role in labels.items() if role == "single_scale"]
    multi = [label for label, role in labels.items() if role in ("multi_scale", "both")]
    more = [(one, other) for one, other in product(single, multi) if (other, one) not in pairs]
    return list(dict.fromkeys([*pairs, *more]))


def _reference(summaries: Sequence[ArmSummary]) -> ArmSummary:
    """The first 3D-only arm; without one the first arm stands in its place."""
    return next((summary for summary in summaries if summary.role == "3d_only"), summaries[0])


def _looks(contrasts: Sequence[Contrast]) -> list[str]:
    """How often contrasts have been looked at whose arms get seeds until they are decided."""
    return [
        f"{contrast.label} - {contrast.reference}: look {look.number} of {look.of}, at {look.seeds} seeds each;"
        " p and the interval account for the looks."
        for contrast in contrasts
        if (look := contrast.look)
    ]


def _gaps(arms: Sequence[Arm]) -> list[str]:
    """What is missing of the arms' own specs."""
    return [
        f"{arm.label}: {len(arm.seeds)} of {len(arm.spec.seeds)} seeds are finished."
        for arm in arms
        if arm.missing_seeds
    ]
