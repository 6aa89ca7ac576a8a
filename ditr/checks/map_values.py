"""Stage 1, values: every map can be read and is what the spec says it is, and no two frames share one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import xxhash
from torch import Tensor

from ditr.checks.live_source import encode
from ditr.checks.measure import Measurements, in_a_line
from ditr.checks.subject import Subject
from ditr.checks.tables import MAP_VALUES
from ditr.errors import DitrError
from ditr.features.sources import FeatureSource
from ditr.progress import Progress
from ditr.spec.feature_maps import is_per_point, map_shape


def measure_values(
    subject: Subject, *, source: FeatureSource | None, indices: Sequence[int], keep: Sequence[int], progress: Progress
) -> tuple[Measurements, dict[int, Tensor]]:
    """Reads the maps of ``indices`` that are there one after the other, or computes them where none are stored.

    Returns the maps (C, Hp, Wp) of the frames ``keep`` that are fit to be compared with anything, too.
    """
    found, ids = Measurements(MAP_VALUES), subject.frames.ids
    missing = set() if subject.maps is None else set(subject.maps.missing(ids))
    shape = _expected_shape(subject, source)
    maps: dict[int, Tensor] = {}
    by_content: dict[str, list[int]] = defaultdict(list)
    for done, index in enumerate(indices):
        progress("maps", done, len(indices))
        if ids[index] in missing:
            continue
        try:
            tokens = _map(subject, index, source=source)
        except DitrError as error:
            found.take("maps_unreadable", 1, ids[index], note=in_a_line(error))
            continue
        if _fits(tokens, ids[index], shape=_of_frame(subject, index, shape), into=found):
            by_content[xxhash.xxh3_128_hexdigest(tokens.contiguous().numpy().data)].append(index)
            if index in keep:
                maps[index] = tokens
    progress("maps", len(indices), len(indices))
    for first, *others in by_content.values():
        for other in others:
            if not _same_image(subject, first, other):
                found.take("maps_distinct", 1, note=f"{ids[other]} has the map of {ids[first]}")
    return found, maps


def _expected_shape(subject: Subject, source: FeatureSource | None) -> tuple[int, int, int] | None:
    """Of every map, by the spec and the source's entry; else by what reads the maps."""
    spec, entry = subject.spec.read_features, subject.entry
    if entry is None and source is not None:
        entry = source.entry
    if spec is not None and entry is not None:
        return map_shape(spec, entry)
    return None if subject.maps is None else subject.maps.shape


def _of_frame(subject: Subject, index: int, shape: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
    """Features of points are as many as the frame has."""
    if shape is None or subject.entry is None or not is_per_point(subject.entry):
        return shape
    try:
        return shape[0], shape[1], len(subject.frames.frame(index).points)
    except DitrError:  # other checks tell
        return None


def _map(subject: Subject, index: int, *, source: FeatureSource | None) -> Tensor:
    if subject.maps is not None:
        return subject.maps.read(subject.frames.ids[index])
    assert source is not None, "maps that are not stored are computed by a source"
    return encode(source, subject.frames.image(index)[None])[0].cpu()


def _fits(tokens: Tensor, frame: str, *, shape: tuple[int, int, int] | None, into: Measurements) -> bool:
    """Whether the map is fit to be compared with anything."""
    if tokens.dtype != torch.float16:
        into.take("map_dtype", 1, frame, note=str(tokens.dtype))
    if shape is not None and tuple(tokens.shape) != shape:
        into.take("map_shape", 1, frame, note=f"{tuple(tokens.shape)}, not {shape}")
        return False
    values = tokens.float()
    if not torch.isfinite(values).all():
        into.take("map_finite", 1, frame, note="NaN or infinite")
        return False
    into.take("map_variation", _variation(values), frame)
    return True


def _same_image(subject: Subject, first: int, other: int) -> bool:
    try:
        one, two = subject.frames.image(first), subject.frames.image(other)
    except DitrError:
        return False
    return one.shape == two.shape and bool((one == two).all())


def _variation(values: Tensor) -> float:
    """How far tokens are from their mean, relative to their size; 0 of a map of zeros."""
    size = float(values.norm())
    return float((values - values.mean(dim=(1, 2), keepdim=True)).norm()) / size if size > 0 else 0.0
