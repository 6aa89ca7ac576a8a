"""Where a fusion helps: its difference to 3D only on parts of the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ditr.evaluation.instance_facts import load_instances
from ditr.evaluation.resampling import Metric, Scored
from ditr.evaluation.statistics import Difference, difference
from ditr.evaluation.strata import Stratum, strata
from ditr.report.arms import Arm

FEWEST_INSTANCES = 30
"""Parts with fewer instances are left out: their AP is a matter of single ones."""


@dataclass(frozen=True, kw_only=True)
class StratumContrast:
    """One arm against another on a part of the ground truth."""

    label: str
    reference: str
    stratum: Stratum
    reference_mean: float
    """AP of the other arm there, mean over seeds."""
    difference: Difference


def by_stratum(
    arms: Sequence[Arm], *, reference: Arm, metric: Metric, resamples: int = 1000
) -> tuple[StratumContrast, ...]:
    """Every arm but the reference on every part, parts first; no p is corrected, for parts are looked at, not decided.

    Raises
    ------
    DitrError: a run of the reference has no facts about the instances, or arms were evaluated on other frames.
    """
    record = reference.runs[0].folder
    facts = load_instances(record.require_whole(record.instances))
    found = []
    for stratum in strata(facts, min_points=reference.spec.evaluation.min_points):
        if stratum.num_instances < FEWEST_INSTANCES:
            continue
        scored = {arm.label: _scored(arm, stratum) for arm in (reference, *arms)}
        mean = float(scored[reference.label].values(metric).mean())
        for arm in arms:
            if arm.label != reference.label:
                found.append(
                    StratumContrast(
                        label=arm.label,
                        reference=reference.label,
                        stratum=stratum,
                        reference_mean=mean,
                        difference=difference(
                            scored[reference.label], scored[arm.label], metric=metric, resamples=resamples
                        ),
                    )
                )
    return tuple(found)


def _scored(arm: Arm, stratum: Stratum) -> Scored:
    return Scored(arm.tables, esam_compat=arm.spec.esam_compat, counts=stratum.counts)
