"""2D features of a batch on the backbone's voxels, in time and memory that follow the tokens rather than the points.

Reading a map, the mean over a voxel's points, the mean over a voxel's children and a linear layer are all linear: they
commute, so the layer acts on the tokens and one sparse matrix a stride brings the few channels that it leaves to the
voxels. A maximum does not commute; it is taken a few channels at a time, so that only what strides 2 and above keep is
ever held in all channels (docs/reference/fusion.md, Sparse pooling). build_pyramid computes the same directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor, nn

from ditr.model.point_features import PointFeatures
from ditr.model.segments import Segments
from ditr.model.sparse import Voxels, VoxelSet
from ditr.model.sparse_matrix import SparseMatrix, from_entries

MAX_CHANNELS = 128
"""Of the stride-1 features that are held at once while a maximum is taken."""


@dataclass(frozen=True, kw_only=True)
class CoveredVoxels:
    """The M of a stride's V voxels that have a 2D feature, numbered 0..M-1 in the order of the voxels."""

    voxels: VoxelSet
    mask: Tensor
    """(V,) bool."""
    rows: Tensor
    """(M,) int64 voxels."""
    of_member: Tensor
    """(members,) int64, 0..M-1: where each valid point (stride 1) or covered voxel of half the stride lies."""
    members: Tensor
    """(M,) how many it has, at least 1."""

    @cached_property
    def segments(self) -> Segments:
        """The members of each covered voxel."""
        return Segments(of_row=self.of_member, count=len(self.rows))

    def spread(self, values: Tensor) -> Tensor:
        """(M, C) -> (V, C), zero where there is no feature."""
        if len(self.rows) == len(self.mask):
            return values
        return values.new_zeros(len(self.mask), values.shape[1]).index_copy(0, self.rows, values)


class VoxelFeatures:
    """One batch's; strides are computed when they are first asked for. Not to be kept beyond the batch."""

    def __init__(self, points: PointFeatures, voxels: Voxels, *, pooling: Literal["max", "mean"]) -> None:
        self.pooling = pooling
        self._points = points
        self._valid = points.valid.nonzero().squeeze(1)
        self._covered = {1: _cover(voxels.tensor.voxels, voxels.voxel_of_point.index_select(0, self._valid))}
        self._matrices: dict[int, SparseMatrix] = {}
        self._maxima: dict[int, Tensor] = {}

    def covered(self, stride: int) -> CoveredVoxels:
        """Of a power of two."""
        if stride not in self._covered:
            finer = self.covered(stride // 2)
            parents = finer.voxels.parents.index_select(0, finer.rows)
            self._covered[stride] = _cover(finer.voxels.coarser, parents)
        return self._covered[stride]

    def pooled(self, stride: int) -> Tensor:
        """(M, C) every channel of the pooled features; strides above 1 of a maximum are kept, nothing else is."""
        return self._maximum(stride) if self._is_maximum(stride) else self._matrix(stride) @ self._points.tokens

    def projected(self, stride: int, layer: nn.Linear) -> Tensor:
        """(M, width): a layer without a bias of the pooled features."""
        out: Tensor = layer(self._maximum(stride) if self._is_maximum(stride) else self._points.tokens)
        return out if self._is_maximum(stride) else self._matrix(stride) @ out

    def pool_up(self, values: Tensor, *, stride: int) -> Tensor:
        """(M of stride 1, C) -> (M of ``stride``, C): any values of covered voxels, pooled as features are."""
        for exponent in range(1, stride.bit_length()):
            members = self.covered(2**exponent).segments
            values = members.maximum(values) if self.pooling == "max" else members.mean(values)
        return values

    def _is_maximum(self, stride: int) -> bool:
        """At stride 1 there is nothing to pool: a voxel's feature is the mean of its points, whatever the pooling."""
        return self.pooling == "max" and stride > 1

    def _matrix(self, stride: int) -> SparseMatrix:
        """(M, T): the share of every token in each covered voxel's mean."""
        if stride not in self._matrices:
            covered = self.covered(stride)
            finer = self._matrix(stride // 2) if stride > 1 else self._points.matrix(self._valid)
            rows = covered.of_member.index_select(0, finer.rows)
            self._matrices[stride] = from_entries(
                rows,
                finer.columns,
                finer.values / covered.members.index_select(0, rows),
                height=len(covered.rows),
                width=finer.width,
            )
        return self._matrices[stride]

    def _maximum(self, stride: int) -> Tensor:
        if stride not in self._maxima:
            members = self.covered(stride).segments
            if stride > 2:
                values = members.maximum(self._maximum(stride // 2))
            else:
                finest, tokens = self._matrix(1), self._points.tokens
                values = tokens.new_empty(members.count, tokens.shape[1])
                for first in range(0, tokens.shape[1], MAX_CHANNELS):
                    some = slice(first, first + MAX_CHANNELS)
                    values[:, some] = members.maximum(finest @ tokens[:, some].contiguous())
            self._maxima[stride] = values
        return self._maxima[stride]


def _cover(voxels: VoxelSet, voxel_of_member: Tensor) -> CoveredVoxels:
    members = voxel_of_member.bincount(minlength=len(voxels))
    mask = members > 0
    rows = mask.nonzero().squeeze(1)
    number = mask.cumsum(0) - 1
    return CoveredVoxels(
        voxels=voxels,
        mask=mask,
        rows=rows,
        of_member=number.index_select(0, voxel_of_member),
        members=members.index_select(0, rows),
    )
