"""The stages of a check: what each measures, and the checks that come of it."""

from __future__ import annotations

from collections.abc import Iterator

from ditr.checks.measure import Check, Measurements
from ditr.checks.subject import Subject
from ditr.progress import Progress


def run_stage(stage: int, subject: Subject, *, every_map: bool = False, progress: Progress) -> Iterator[Check]:
    """Measured as they are asked for; none where there is nothing to check in the spec.

    Parameters
    ----------
    stage: a key of ``STAGES``.
    every_map: stage 1 reads the maps of all frames, not only of those that are looked at closely.
    """
    for measured in _measured(stage, subject, every_map=every_map, progress=progress):
        yield from measured.checks(stage=stage, limits=subject.spec.checks)


def _measured(stage: int, subject: Subject, *, every_map: bool, progress: Progress) -> Iterator[Measurements]:
    """Each stage imports its own, so that one that cannot be imported leaves the others."""
    if stage == 1:
        from ditr.checks.features import measure_features

        return measure_features(subject, every_map=every_map, progress=progress)
    if stage == 2:
        from ditr.checks.projection import measure_projection

        return measure_projection(subject, progress=progress)
    if stage == 3:
        from ditr.checks.pyramid import measure_pyramid

        return measure_pyramid(subject, progress=progress)
    from ditr.checks.injection import measure_injection

    return measure_injection(subject, progress=progress)
