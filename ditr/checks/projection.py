"""Stage 2: every point falls on the pixel that it is of, whatever augmentation does to it, and reads its map there."""

from __future__ import annotations

from collections.abc import Iterator

from ditr.checks.features import closely
from ditr.checks.forward import check_forward
from ditr.checks.outcome import Check, Subject
from ditr.checks.point_pixels import check_pixels
from ditr.checks.reading import check_reading
from ditr.progress import Progress


def check_projection(subject: Subject, *, progress: Progress) -> Iterator[Check]:
    """The frames that are looked at closely. Without fusion nothing is said of maps, and of reading them."""
    frames = closely(subject)
    yield from check_pixels(subject, indices=frames, progress=progress)
    if subject.spec.fusion.parts:
        yield from check_reading(subject, indices=frames)
    yield from check_forward(subject, indices=frames, progress=progress)
