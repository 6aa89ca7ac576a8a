"""2D features of a batch on the backbone's voxels, in time and memory that follow the tokens rather than the points.

Reading a map, the mean over a voxel's points, the mean over a voxel's children and a linear layer are all linear: they
commute, so the layer acts on the tokens and one sparse matrix a stride brings the few channels that it leaves to the
voxels. A maximum does not commute; it is taken a few channels at a time, so that only what strides 2 and above keep is
ever held in all channels (docs/reference/fusion.md, Sparse pooling).

Tensors have a row for every voxel, with zeros where there is no feature: how many have one is for the device to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ditr.model.point_features import PointFeatures
from ditr.model.segments import Segments
from ditr.model.sparse import Voxels, VoxelSet
from ditr.model.sparse_matrix import SparseMatrix

Pooling = Literal["max", "mean"]
"""How voxels of a coarser stride combine their children's features."""
MAX_CHANNELS = 128
"""Of the stride-1 features that are held at once while a maximum is taken."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Which of a stride's V voxels have a 2D feature; members are points at stride 1, above it voxels of half of it."""

    voxels: VoxelSet
    members: Segments
    """Of every voxel, those without a feature too."""
    counts: Tensor
    """(V,) float32: members with a feature, or 1 where there are none."""
    mask: Tensor
    """(V,) bool: some member has a feature."""
    points: Segments
    """Of every voxel, likewise."""
    shares: Tensor
    """(N,) float32: of each point in its voxel's mean; 0 of a point without a feature."""


class VoxelFeatures:
    """One batch's; strides are computed when they are first asked for. Not to be kept beyond the batch."""

    def __init__(self, points: PointFeatures, voxels: Voxels) -> None:
        self._points = points
        of_points, valid = voxels.of_points, points.valid
        self._coverage = {
            1: _cover(voxels.tensor.voxels, of_points, valid, points=of_points, shares=valid.to(torch.float32))
        }
        self._matrices: dict[int, SparseMatrix] = {}
        self._maxima: dict[int, Tensor] = {}

    def coverage(self, stride: int) -> Coverage:
        """Of a power of two."""
        if stride not in self._coverage:
            finer = self.coverage(stride // 2)
            voxels, parents = finer.voxels.coarser, finer.voxels.parents
            members, points = (
                Segments(of_row=rows, count=len(voxels))
                for rows in (parents, parents.index_select(0, finer.points.of_row))
            )
            self._coverage[stride] = _cover(voxels, members, finer.mask, points=points, shares=finer.shares)
        return self._coverage[stride]

    def voxels(self, stride: int) -> VoxelSet:
        """Those that ``mask`` and all features are of: the backbone's own."""
        return self.coverage(stride).voxels

    def mask(self, stride: int) -> Tensor:
        """(V,) bool: the voxel has a 2D feature; in the row order of the backbone's tensors of this stride."""
        return self.coverage(stride).mask

    @property
    def levels(self) -> tuple[tuple[int, Pooling], ...]:
        """Stride and pooling of all that has been asked for; at stride 1 there is nothing to pool."""
        return (*((stride, "mean") for stride in self._matrices), *((stride, "max") for stride in self._maxima))

    def pooled(self, stride: int, *, pooling: Pooling) -> Tensor:
        """(V, C) every channel of the pooled features; strides above 1 of a maximum are kept, nothing else is."""
        if _is_maximum(stride, pooling):
            return self._maximum(stride)
        return self._matrix(stride) @ self._points.tokens

    def projected(self, stride: int, layer: nn.Linear, *, pooling: Pooling) -> Tensor:
        """(V, width): a layer without a bias of the pooled features."""
        if _is_maximum(stride, pooling):
            out: Tensor = layer(self._maximum(stride))
            return out
        of_tokens: Tensor = layer(self._points.tokens)
        return self._matrix(stride) @ of_tokens

    def pool_up(self, values: Tensor, *, stride: int, pooling: Pooling) -> Tensor:
        """(V of stride 1, C) -> (V of ``stride``, C): any values, pooled as features are; zeros where there is none."""
        for exponent in range(1, stride.bit_length()):
            values = self._pool(values, stride=2**exponent, pooling=pooling)
        return values

    def _pool(self, values: Tensor, *, stride: int, pooling: Pooling) -> Tensor:
        """From half the stride."""
        coverage = self.coverage(stride)
        if pooling == "mean":
            return coverage.members.sum(values) / coverage.counts.unsqueeze(1)
        floor = torch.where(self.coverage(stride // 2).mask, 0.0, -torch.inf)
        found = coverage.members.maximum(values + floor.unsqueeze(1))
        return torch.where(coverage.mask.unsqueeze(1), found, 0)

    def _matrix(self, stride: int) -> SparseMatrix:
        """(V, T): the share of every token in each voxel's mean."""
        if stride not in self._matrices:
            coverage = self.coverage(stride)
            self._matrices[stride] = self._points.matrix(coverage.points, shares=coverage.shares)
        return self._matrices[stride]

    def _maximum(self, stride: int) -> Tensor:
        if stride not in self._maxima:
            if stride > 2:
                values = self._pool(self._maximum(stride // 2), stride=stride, pooling="max")
            else:
                finest, tokens = self._matrix(1), self._points.tokens
                values = tokens.new_empty(len(self.coverage(2).mask), tokens.shape[1])
                for first in range(0, tokens.shape[1], MAX_CHANNELS):
                    some = slice(first, first + MAX_CHANNELS)
                    values[:, some] = self._pool(finest @ tokens[:, some].contiguous(), stride=2, pooling="max")
            self._maxima[stride] = values
        return self._maxima[stride]


def _is_maximum(stride: int, pooling: Pooling) -> bool:
    """At stride 1 there is nothing to pool: a voxel's feature is the mean of its points, whatever the pooling."""
    return pooling == "max" and stride > 1


def _cover(voxels: VoxelSet, members: Segments, with_feature: Tensor, *, points: Segments, shares: Tensor) -> Coverage:
    """``with_feature`` (members,) bool; ``shares`` of the points in the means of the members."""
    found = members.sum(with_feature.to(torch.float32).unsqueeze(1)).squeeze(1)
    counts = found.clamp(min=1)
    return Coverage(
        voxels=voxels,
        members=members,
        counts=counts,
        mask=found > 0,
        points=points,
        shares=shares / points.spread(counts),
    )
