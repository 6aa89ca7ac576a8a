"""Voxels of our own engine: every stride's and every map of a batch, made when it is voxelised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn

from ditr.data.batch import Batch
from ditr.errors import Code, DitrError
from ditr.model.sparse.triton import maps
from ditr.model.sparse.triton.convolution import convolve_and_norm
from ditr.model.sparse.voxels import SparseTensor, Voxels, VoxelSet
from ditr.spec.fusion_part import BOTTLENECK_STRIDE

LEVELS = BOTTLENECK_STRIDE.bit_length()
"""Strides 1, 2, 4, 8, 16."""


def voxelise(batch: Batch, *, voxel_size_m: float) -> Voxels:
    """Floor the coordinates to voxels and average the colours in each (docs/reference/esam.md, Voxels).

    Waits for the device once, for how many voxels there are.

    Raises
    ------
    DitrError: the points are too far apart for a voxel's key.
    """
    sizes = tuple(len(sample.xyz) for sample in batch)
    corners = torch.floor(torch.cat([sample.xyz for sample in batch]) / voxel_size_m).long()
    index = torch.cat([corners.new_full((size,), number) for number, size in enumerate(sizes)])
    lowest, highest = corners.amin(0), corners.amax(0)
    origin = (lowest.div(BOTTLENECK_STRIDE, rounding_mode="floor") - 1) * BOTTLENECK_STRIDE
    keys, order = maps.keys_of(corners - origin, batch_index=index).sort(stable=True)
    at_levels = keys >> 3 * torch.arange(LEVELS, device=keys.device)[:, None]
    counts = 1 + (at_levels[:, 1:] != at_levels[:, :-1]).sum(1)
    *counted, extent = torch.cat([counts, (highest - lowest).amax()[None]]).tolist()
    if extent > maps.MAX_EXTENT:
        raise DitrError(
            f"the points of a batch lie {extent * voxel_size_m:,.0f} m apart, {extent:,} voxels along an axis; the "
            f"triton engine has room for {maps.MAX_EXTENT:,}",
            code=Code.DATASET,
            where=", ".join(sample.frame_id for sample in batch),
            fix="look with `ditr data show` for points that lie outside the scene, or take execution.engine: minkowski",
        )
    finest, row = maps.distinct(keys, count=counted[0])
    colours = torch.cat([sample.colour for sample in batch]).index_select(0, order)
    ends = torch.searchsorted(row, torch.arange(counted[0] + 1, device=row.device))
    means = torch.segment_reduce(colours, "mean", offsets=ends, axis=0, unsafe=True)
    return Voxels(
        tensor=SparseTensor(features=means, voxels=_filled(finest, counted, origin=origin)),
        voxel_of_point=torch.empty_like(row).scatter_(0, order, row),
        sizes=sizes,
    )


def _filled(finest: Tensor, counted: Sequence[int], *, origin: Tensor) -> TritonVoxels:
    """The voxels of stride 1, whose keys are given, and of all coarser strides."""
    voxels = with_room(counted, device=finest.device)
    keys, chain = finest, list(voxels.chain)
    for one, coarser in zip_longest(chain, chain[1:]):
        coarse, parents = (keys, None) if coarser is None else maps.distinct(keys >> 3, count=len(coarser))
        maps.fill(one.maps, keys, level=one.level, parents=parents)
        one.places = Places(keys=keys, origin=origin, parents=parents)
        keys = coarse
    return voxels


def with_room(rooms: Sequence[int], *, device: torch.device) -> TritonVoxels:
    """Voxels of stride 1, and of all coarser ones, whose maps are to be filled."""
    coarser: TritonVoxels | None = None
    for level in reversed(range(LEVELS)):
        of_coarser = None if coarser is None else coarser.maps
        found = maps.StrideMaps(rooms[level], coarse=of_coarser, stem=level == 0, device=device)
        coarser = TritonVoxels(found, level=level, coarser=coarser)
    assert coarser is not None
    return coarser


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where V voxels lie."""

    keys: Tensor
    """(V,) int64, sorted."""
    origin: Tensor
    """(3,) int64: the corner of key 0, in stride-1 voxels."""
    parents: Tensor | None
    """(V,) int64 rows of twice the stride; None at the coarsest."""


class TritonVoxels(VoxelSet):
    """One stride's, in Morton order."""

    places: Places | None = None
    """None where the maps were copied: then only convolutions know the voxels."""

    def __init__(self, found: maps.StrideMaps, *, level: int, coarser: TritonVoxels | None) -> None:
        self.maps, self.level, self.stride = found, level, 2**level
        self._coarser = coarser

    def __len__(self) -> int:
        return self.maps.room

    @property
    def corners(self) -> Tensor:
        places = self._known
        index, corners = maps.corners_of(places.keys, level=self.level)
        return torch.cat([index[:, None], corners * self.stride + places.origin], dim=1).int()

    @property
    def chain(self) -> Iterator[TritonVoxels]:
        """These, then all that are coarser."""
        yield self
        if self._coarser is not None:
            yield from self._coarser.chain

    @property
    def coarser(self) -> TritonVoxels:
        assert self._coarser is not None, f"stride {self.stride} is the coarsest that is made"
        return self._coarser

    @property
    def parents(self) -> Tensor:
        parents = self._known.parents
        assert parents is not None, f"stride {self.stride} is the coarsest that is made"
        return parents

    @property
    def _known(self) -> Places:
        assert self.places is not None, "these voxels are those of another batch at every step"
        return self.places

    def convolve_and_norm(
        self,
        features: Tensor,
        kernel: Tensor,
        norm: nn.BatchNorm1d,
        *,
        onto: VoxelSet,
        shortcut: Tensor | None,
        relu: bool,
    ) -> Tensor:
        gather = self._map(len(kernel) if kernel.dim() == 3 else 1, onto=onto)
        return convolve_and_norm(features, kernel, norm, gather=gather, shortcut=shortcut, relu=relu)

    def pairs(self, offsets: int, *, onto: VoxelSet) -> int:
        found = self._map(offsets, onto=onto)
        gather = found.forward if isinstance(found, maps.ConvolutionMap) else found
        return int((gather.neighbours >= 0).sum())

    def _map(self, offsets: int, *, onto: VoxelSet) -> maps.ConvolutionMap | maps.GatherMap:
        assert isinstance(onto, TritonVoxels), f"{type(onto).__name__} are another engine's"
        if self is onto and offsets == 1:
            return self.maps.alone
        if self is onto and offsets == 27:
            return self.maps.within
        if self is onto and offsets == 125:
            return self.maps.stem
        assert offsets == 8, f"no kernel of {offsets} offsets leads from stride {self.stride} to {onto.stride}"
        if self._coarser is onto:
            return self.maps.down
        assert onto._coarser is self, f"strides {self.stride} and {onto.stride} are not of one batch"
        return onto.maps.up
