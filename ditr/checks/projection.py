"""Stage 2: every point falls on the pixel that it is of, whatever augmentation does to it, and reads its map there."""

from __future__ import annotations

from collections.abc import Iterator

from ditr.checks.forward import measure_forward
from ditr.checks.map_reading import measure_reading
from ditr.checks.measure import Measurements
from ditr.checks.point_pixels import measure_pixels
from ditr.checks.subject import Subject
from ditr.progress import Progress


def measure_projection(subject: Subject, *, progress: Progress) -> Iterator[Measurements]:
    """The frames that are looked at closely. Without fusion nothing is said of maps, and of reading them."""
    frames = subject.close_frames()
    yield measure_pixels(subject, indices=frames, progress=progress)
    if subject.spec.fusion.parts:
        yield measure_reading(subject, indices=frames)
    yield from measure_forward(subject, indices=frames, progress=progress)
