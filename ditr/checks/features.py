"""Stage 1: the maps are whole, of this data by this source, and each is of its own image, upright and in place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ditr.checks.live_source import check_source
from ditr.checks.map_files import check_files
from ditr.checks.map_places import check_places
from ditr.checks.map_values import SeenMaps, check_values
from ditr.checks.outcome import Check, Subject, failed
from ditr.errors import DitrError
from ditr.features.sources import FeatureSource
from ditr.progress import Progress
from ditr.seeds import derive_seed


def check_features(subject: Subject, *, every_map: bool, progress: Progress) -> Iterator[Check]:
    """Nothing where the spec has no fusion.

    Of every frame of the subject the map is read, with ``every_map``; else only those of the frames that are looked at
    closely, whose maps are also computed again and compared with images.
    """
    if not subject.spec.fusion.parts:
        return
    close = closely(subject)
    source: FeatureSource | None = None
    if subject.source is not None:
        try:
            source = subject.source()
        except DitrError as error:
            yield failed(1, "source_loads", error, limit="without an error")
    indices = list(range(len(subject.frames))) if every_map else close
    yield from check_files(subject, source=source, indices=indices)
    seen = SeenMaps(subject, source=source)
    if subject.maps is not None or source is not None:
        seen.look(indices, keep=close, progress=progress)
        yield from check_values(seen)
    if source is not None:
        yield from check_source(subject, maps=seen.maps, source=source, progress=progress)
    yield from check_places(subject, maps=seen.maps, progress=progress)


def closely(subject: Subject) -> list[int]:
    """Indices of the frames that are looked at closely, in order; drawn from the seed."""
    count = min(len(subject.frames), subject.sampled)
    draw = np.random.default_rng(derive_seed(subject.seed, "check", "closely"))
    return sorted(draw.choice(len(subject.frames), size=count, replace=False).tolist())
