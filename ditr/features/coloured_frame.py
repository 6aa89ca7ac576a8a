"""One frame's 2D features as colours: its map, and what its points read of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ditr.catalog import locate_maps
from ditr.data.dataset import Dataset
from ditr.data.frame import Frame
from ditr.data.scannet_sv import FrameSet
from ditr.features.extract import store_folder
from ditr.features.precomputed import PrecomputedMaps
from ditr.features.principal_colours import PrincipalColours, fit_colours
from ditr.features.sources import load_source
from ditr.features.store import FeatureStore, Maps
from ditr.geometry.camera import project
from ditr.geometry.sampling import sample_map
from ditr.spec.entries import PrecomputedEntry
from ditr.spec.feature_maps import Source, map_covers, map_shape
from ditr.spec.models import FeatureSpec


@dataclass(frozen=True, kw_only=True)
class ColouredFrame:
    """A frame of N points in colours of its map (C, Hp, Wp)."""

    frame: Frame
    image: np.ndarray
    """(H, W, 3) uint8."""
    shape: tuple[int, int, int]
    """C, Hp, Wp."""
    map_hw: tuple[int, int]
    """Height and width in pixels of the image that the map covers from its top left corner."""
    map_colours: np.ndarray
    """(Hp, Wp, 3) in 0..1, a colour a token."""
    explained: tuple[float, float, float]
    """Share of the map's variance that red, green and blue show."""
    uv: np.ndarray
    """(N, 2) pixels of the points; 0 where not valid."""
    uv_valid: np.ndarray
    """(N,) bool: the point reads a 2D feature."""
    point_colours: np.ndarray
    """(N, 3) in 0..1, of what each point reads; means nothing where not valid."""
    stored_at: Path | None
    """Where the map was read; None where it was computed now, and is kept nowhere."""


def coloured_frame(
    frames: FrameSet, index: int, *, spec: FeatureSpec, entry: Source, dataset: Dataset
) -> ColouredFrame:
    """Frame ``index`` with its stored map if there is one, else with the same computed on the CPU.

    Raises DitrError where the map is damaged or cannot be computed, and where a precomputed one is missing.
    """
    frame, image = frames.frame(index), frames.image(index)
    image_hw = (image.shape[0], image.shape[1])
    maps = _maps(spec, entry, dataset)
    stored = maps is not None and (isinstance(entry, PrecomputedEntry) or not maps.missing([frame.id]))
    tokens = maps.read(frame.id) if maps and stored else _computed(image, spec, entry)
    map_hw = map_covers(spec, entry) or image_hw
    colours = colours_of_map(tokens, map_hw=map_hw, image_hw=image_hw)
    projection = project(frame.points[:, :3], pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics)
    uv = np.where(projection.valid[:, None], projection.uv, 0.0)
    read = sample_map(tokens, torch.from_numpy(uv), map_hw=map_hw, mode=spec.sampling)
    channels, rows, columns = tokens.shape
    return ColouredFrame(
        frame=frame,
        image=image,
        shape=(channels, rows, columns),
        map_hw=map_hw,
        map_colours=colours.of(tokens.flatten(1).T).reshape(rows, columns, 3),
        explained=colours.explained,
        uv=uv,
        uv_valid=projection.valid,
        point_colours=colours.of(read),
        stored_at=maps.path(frame.id) if maps and stored else None,
    )


def colours_of_map(tokens: Tensor, *, map_hw: tuple[int, int], image_hw: tuple[int, int]) -> PrincipalColours:
    """Of a map (C, Hp, Wp) by its tokens on the image; ``map_hw`` is what the map covers, both in pixels."""
    return fit_colours(_on_the_image(tokens, map_hw=map_hw, image_hw=image_hw))


def _maps(spec: FeatureSpec, entry: Source, dataset: Dataset) -> Maps | None:
    """Where maps of the spec are kept; None where they never are."""
    if isinstance(entry, PrecomputedEntry):
        return PrecomputedMaps(locate_maps(entry, dataset_root=dataset.root), entry=entry)
    if spec.mode == "online":
        return None
    return FeatureStore(store_folder(spec=spec, entry=entry, dataset=dataset), shape=map_shape(spec, entry))


def _computed(image: np.ndarray, spec: FeatureSpec, entry: Source) -> Tensor:
    assert not isinstance(entry, PrecomputedEntry), "a precomputed map is read, or its absence is an error"
    return load_source(spec, entry=entry, device=torch.device("cpu")).encode(image[None])[0]


def _on_the_image(tokens: Tensor, *, map_hw: tuple[int, int], image_hw: tuple[int, int]) -> Tensor:
    """(T, C) tokens whose centres lie on the image: padding would take the colours for itself."""
    rows, columns = (
        int(np.count_nonzero((np.arange(count) + 0.5) * covered / count < size))
        for count, covered, size in zip(tokens.shape[1:], map_hw, image_hw, strict=True)
    )
    return tokens[:, :rows, :columns].flatten(1).T
