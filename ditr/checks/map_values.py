"""Stage 1, values: every map can be read and is what the spec says it is, and no two frames share one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import xxhash
from torch import Tensor

from ditr.checks.live_source import encode
from ditr.checks.map_files import some
from ditr.checks.outcome import Check, Subject, at_least, at_most, first_of, smallest, told
from ditr.errors import DitrError
from ditr.features.sources import FeatureSource
from ditr.progress import Progress
from ditr.spec.feature_maps import map_shape


@dataclass
class SeenMaps:
    """What the maps of some frames are like; those of the frames looked at closely are kept."""

    subject: Subject
    source: FeatureSource | None
    maps: dict[int, Tensor] = field(default_factory=dict)
    """(C, Hp, Wp) by index of the frame."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Frame id -> why; so the others below, of what was read."""
    other_shape: dict[str, str] = field(default_factory=dict)
    other_dtype: dict[str, str] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)
    variation: dict[str, float] = field(default_factory=dict)
    by_content: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def look(self, indices: Sequence[int], *, keep: Sequence[int], progress: Progress) -> None:
        """Reads the maps of ``indices`` that are there one after the other, or computes them where none are stored."""
        missing = set() if self.subject.maps is None else set(self.subject.maps.missing(self.subject.frames.ids))
        for done, index in enumerate(indices):
            progress("maps", done, len(indices))
            if self.subject.frames.ids[index] in missing:
                continue
            try:
                tokens = self._map(index)
            except DitrError as error:
                self.unreadable[self.subject.frames.ids[index]] = told(error)
                continue
            if self._note(index, tokens) and index in keep:
                self.maps[index] = tokens
        progress("maps", len(indices), len(indices))

    def expected_shape(self) -> tuple[int, int, int] | None:
        """Of every map, by the spec and the source's entry; else by what reads the maps."""
        spec, entry = self.subject.spec.read_features, self.subject.entry
        if entry is None and self.source is not None:
            entry = self.source.entry
        if spec is not None and entry is not None:
            return map_shape(spec, entry)
        return None if self.subject.maps is None else self.subject.maps.shape

    def _map(self, index: int) -> Tensor:
        if self.subject.maps is not None:
            return self.subject.maps.read(self.subject.frames.ids[index])
        assert self.source is not None, "maps that are not stored are computed by a source"
        return encode(self.source, self.subject.frames.image(index)[None])[0].cpu()

    def _note(self, index: int, tokens: Tensor) -> bool:
        """Whether the map is fit to be compared with anything."""
        frame = self.subject.frames.ids[index]
        shape = self.expected_shape()
        if tokens.dtype != torch.float16:
            self.other_dtype[frame] = str(tokens.dtype)
        if shape is not None and tuple(tokens.shape) != shape:
            self.other_shape[frame] = f"{tuple(tokens.shape)}, not {shape}"
            return False
        values = tokens.float()
        if not torch.isfinite(values).all():
            self.not_finite.append(frame)
            return False
        self.variation[frame] = _variation(values)
        self.by_content[xxhash.xxh3_128_hexdigest(tokens.contiguous().numpy().data)].append(index)
        return True


def check_values(seen: SeenMaps) -> Iterator[Check]:
    """What ``seen`` has noted, held against the spec's limits."""
    yield at_most(1, "maps_unreadable", len(seen.unreadable), limit=0, detail=first_of(seen.unreadable))
    yield _count("map_shape", seen.other_shape)
    yield _count("map_dtype", seen.other_dtype)
    yield at_most(1, "map_finite", len(seen.not_finite), limit=0, detail=some(seen.not_finite, "NaN or infinite"))
    value, frame = smallest(seen.variation)
    limit, fix = seen.subject.spec.checks.min_map_variation, "a map that is the same everywhere tells points nothing"
    yield at_least(1, "map_variation", value, limit=limit, detail=f"least in {frame}", fix=fix)
    yield _distinct(seen)


def _count(name: str, wrong: dict[str, str]) -> Check:
    return at_most(1, name, len(wrong), limit=0, detail=first_of(wrong))


def _distinct(seen: SeenMaps) -> Check:
    """Two frames have one map only where they have one image."""
    ids, shared = seen.subject.frames.ids, []
    for indices in seen.by_content.values():
        first, *others = indices
        shared += [
            f"{ids[other]} has the map of {ids[first]}" for other in others if not _same_image(seen, first, other)
        ]
    fix = "delete both and extract again"
    return at_most(1, "maps_distinct", len(shared), limit=0, detail="".join(shared[:1]), fix=fix)


def _same_image(seen: SeenMaps, first: int, other: int) -> bool:
    try:
        one, two = seen.subject.frames.image(first), seen.subject.frames.image(other)
    except DitrError:
        return False
    return one.shape == two.shape and bool((one == two).all())


def _variation(values: Tensor) -> float:
    """How far tokens are from their mean, relative to their size; 0 of a map of zeros."""
    size = float(values.norm())
    return float((values - values.mean(dim=(1, 2), keepdim=True)).norm()) / size if size > 0 else 0.0
