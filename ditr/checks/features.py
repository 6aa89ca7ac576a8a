"""Stage 1: the maps are whole, of this data by this source, and each is of its own image, upright and in place."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ditr.checks.live_source import measure_source
from ditr.checks.map_alignment import measure_alignment
from ditr.checks.map_files import measure_files
from ditr.checks.map_values import measure_values
from ditr.checks.measure import Measurements
from ditr.checks.subject import Subject
from ditr.checks.tables import LOADING
from ditr.errors import DitrError
from ditr.features.sources import FeatureSource
from ditr.progress import Progress


def measure_features(subject: Subject, *, every_map: bool, progress: Progress) -> Iterator[Measurements]:
    """Nothing where the spec has no fusion.

    Of every frame of the subject the map is read, with ``every_map``; else only those of the frames that are looked at
    closely, whose maps are also computed again and compared with images.
    """
    if not subject.spec.fusion.parts:
        return
    close = subject.close_frames()
    source: FeatureSource | None = None
    if subject.source is not None:
        try:
            source = subject.source()
        except DitrError as error:
            loading = Measurements(LOADING)
            loading.fail("source_loads", error)
            yield loading
    indices = list(range(len(subject.frames))) if every_map else close
    yield from measure_files(subject, source=source, indices=indices)
    maps: dict[int, Tensor] = {}
    if subject.maps is not None or source is not None:
        values, maps = measure_values(subject, source=source, indices=indices, keep=close, progress=progress)
        yield values
    if source is not None:
        yield from measure_source(subject, maps=maps, source=source, progress=progress)
    yield from measure_alignment(subject, maps=maps, progress=progress)
