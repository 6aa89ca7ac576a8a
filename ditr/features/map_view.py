"""One frame's 2D features as colours: its map, and what its points read of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ditr.catalog import locate_maps
from ditr.data.dataset import Dataset
from ditr.data.frame_view import FrameView, MapColours, view_of
from ditr.data.samples import for_points
from ditr.data.scannet_sv import FrameSet
from ditr.features.extract import store_folder
from ditr.features.precomputed_maps import PrecomputedMaps
from ditr.features.principal_colours import PrincipalColours, fit_colours
from ditr.features.sources import load_source
from ditr.features.store import FeatureStore, Maps
from ditr.geometry.sampling import Mode, sample_map
from ditr.spec.entries import GivenEntry
from ditr.spec.feature_maps import Source, is_per_point, map_covers, map_shape
from ditr.spec.models import FeatureSpec


@dataclass(frozen=True, kw_only=True)
class MapFacts:
    """Of the map that a view is coloured by."""

    shape: tuple[int, ...]
    """C, Hp, Wp."""
    explained: tuple[float, float, float]
    """Share of the map's variance that red, green and blue show."""
    stored_at: Path | None
    """Where the map was read; None where it was computed now, and is kept nowhere."""


def view_of_map(
    frames: FrameSet, index: int, *, spec: FeatureSpec, entry: Source, dataset: Dataset
) -> tuple[FrameView, MapFacts]:
    """Frame ``index`` with its stored map if there is one, else with the same computed on the CPU.

    Raises DitrError where the map is damaged or cannot be computed, and where a precomputed one is missing.
    """
    view = view_of(frames, index)
    maps = _maps(spec, entry, dataset)
    stored = maps is not None and (isinstance(entry, GivenEntry) or not maps.missing([view.frame_id]))
    tokens = maps.read(view.frame_id) if maps and stored else _computed(view.image, spec, entry)
    uv = torch.from_numpy(view.uv)
    covers = None if is_per_point(entry) else map_covers(spec, entry) or view.image_hw
    if covers is None:
        tokens = for_points(tokens, len(uv), frame_id=view.frame_id)
    colours, features = map_colours(tokens, uv=uv, covers_hw=covers, image_hw=view.image_hw, sampling=spec.sampling)
    stored_at = maps.path(view.frame_id) if maps and stored else None
    facts = MapFacts(shape=tuple(tokens.shape), explained=colours.explained, stored_at=stored_at)
    return replace(view, features=features), facts


def map_colours(
    tokens: Tensor, *, uv: Tensor, covers_hw: tuple[int, int] | None, image_hw: tuple[int, int], sampling: Mode
) -> tuple[PrincipalColours, MapColours]:
    """Of a map (C, Hp, Wp) by its tokens on the image, and of what the points at ``uv`` (N, 2) read of it.

    Where it covers nothing it is (C, 1, N), the features of the points.
    """
    if covers_hw is None:
        colours = fit_colours(tokens.flatten(1).T)
        of_tokens = colours.bytes_of_map(tokens)
        return colours, MapColours(of_tokens=of_tokens, covers_hw=None, of_points=of_tokens[0])
    colours = fit_colours(_on_the_image(tokens, map_hw=covers_hw, image_hw=image_hw))
    of_points = colours.bytes_of(sample_map(tokens, uv, map_hw=covers_hw, mode=sampling))
    return colours, MapColours(of_tokens=colours.bytes_of_map(tokens), covers_hw=covers_hw, of_points=of_points)


def _maps(spec: FeatureSpec, entry: Source, dataset: Dataset) -> Maps | None:
    """Where maps of the spec are kept; None where they never are."""
    if isinstance(entry, GivenEntry):
        return PrecomputedMaps(locate_maps(entry, dataset_root=dataset.root), entry=entry)
    if spec.mode == "online":
        return None
    return FeatureStore(store_folder(spec=spec, entry=entry, dataset=dataset), shape=map_shape(spec, entry))


def _computed(image: np.ndarray, spec: FeatureSpec, entry: Source) -> Tensor:
    assert not isinstance(entry, GivenEntry), "a precomputed map is read, or its absence is an error"
    return load_source(spec, entry=entry, device=torch.device("cpu")).encode(image[None])[0]


def _on_the_image(tokens: Tensor, *, map_hw: tuple[int, int], image_hw: tuple[int, int]) -> Tensor:
    """(T, C) tokens whose centres lie on the image: padding would take the colours for itself."""
    rows, columns = (
        int(np.count_nonzero((np.arange(count) + 0.5) * covered / count < size))
        for count, covered, size in zip(tokens.shape[1:], map_hw, image_hw, strict=True)
    )
    return tokens[:, :rows, :columns].flatten(1).T
