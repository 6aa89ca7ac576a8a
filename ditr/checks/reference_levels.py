"""The pyramid once more, by nothing but grouping: what the model's levels are held against.

It shares no operation with the model's way: no sparse tensor, no map between strides, no matrix of tokens. The points
of a sample read its own map, and a voxel is what floors to the same corner in the same sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ditr.data.batch import Batch
from ditr.geometry.sampling import sample_map

_BITS = 15
"""Of each coordinate's code: +-16,384 voxels, 327 m at 2 cm."""


@dataclass(frozen=True, kw_only=True)
class ReferenceLevel:
    """V voxels of one stride, in the order of their codes."""

    corners: Tensor
    """(V, 4) int64: sample, then the corner in units of the stride-1 voxel."""
    codes: Tensor
    """(V,) int64, sorted: one number a corner."""
    features: Tensor
    """(V, C), zero where ``mask`` is false."""
    mask: Tensor
    """(V,) bool: some point with a 2D feature lies in the voxel."""

    def rows(self, corners: Tensor) -> tuple[Tensor, Tensor]:
        """Of (W, 4) voxels, the row of each here, and whether it is here at all."""
        wanted = codes(corners.long().to(self.codes.device))
        rows = torch.searchsorted(self.codes, wanted).clamp(max=len(self.codes) - 1)
        return rows, self.codes[rows] == wanted


def stride_one(batch: Batch, *, voxel_size_m: float, sampling: Literal["nearest", "bilinear"]) -> ReferenceLevel:
    """The mean over the valid points of each voxel; every sample must have its map."""
    corners, values = [], []
    for index, sample in enumerate(batch):
        assert sample.tokens is not None, "a batch of a model that reads 2D features has maps"
        corner = torch.floor(sample.xyz / voxel_size_m).long()
        corners.append(torch.nn.functional.pad(corner, (1, 0), value=index))
        if sample.map_hw is None:
            values.append(sample.tokens[:, 0].T.float())
        else:
            values.append(sample_map(sample.tokens, sample.uv, map_hw=sample.map_hw, mode=sampling))
    valid = torch.cat([sample.uv_valid for sample in batch])
    return _grouped(torch.cat(corners), torch.cat(values), valid, pooling="mean")


def coarser(level: ReferenceLevel, *, stride: int, pooling: Literal["max", "mean"]) -> ReferenceLevel:
    """The level of ``stride`` from the one of half of it: maximum or mean of the children with a feature."""
    corners = level.corners.clone()
    corners[:, 1:] = corners[:, 1:].div(stride, rounding_mode="floor") * stride
    return _grouped(corners, level.features, level.mask, pooling=pooling)


def levels(finest: ReferenceLevel, *, up_to: int, pooling: Literal["max", "mean"]) -> dict[int, ReferenceLevel]:
    """By stride, from 1 on."""
    found = {1: finest}
    while max(found) < up_to:
        stride = 2 * max(found)
        found[stride] = coarser(found[stride // 2], stride=stride, pooling=pooling)
    return found


def projected(level: ReferenceLevel, project: Callable[[Tensor], Tensor]) -> ReferenceLevel:
    """The same voxels with the projection of what those with a feature hold; the others hold zeros."""
    values = project(level.features[level.mask])
    out = values.new_zeros(len(level.mask), values.shape[1])
    out[level.mask] = values
    return ReferenceLevel(corners=level.corners, codes=level.codes, features=out, mask=level.mask)


def _grouped(corners: Tensor, values: Tensor, valid: Tensor, *, pooling: Literal["max", "mean"]) -> ReferenceLevel:
    found, group = torch.unique(codes(corners), return_inverse=True)
    voxels = torch.zeros(len(found), 4, dtype=torch.int64, device=corners.device)
    voxels[group] = corners
    count = torch.zeros(len(found), device=values.device).index_add(0, group, valid.float())
    mask = count > 0
    rows = group[valid].unsqueeze(1).expand(-1, values.shape[1])
    zeros = values.new_zeros(len(found), values.shape[1])
    if pooling == "max":
        out = zeros.scatter_reduce(0, rows, values[valid], reduce="amax", include_self=False)
    else:
        out = zeros.scatter_add(0, rows, values[valid]) / count.clamp(min=1).unsqueeze(1)
    return ReferenceLevel(corners=voxels, codes=found, features=out, mask=mask)


def codes(corners: Tensor) -> Tensor:
    """(V, 4) int64 -> (V,) int64: one number a corner."""
    offset = 1 << (_BITS - 1)
    code = corners[:, 0]
    for axis in (1, 2, 3):
        code = (code << _BITS) + (corners[:, axis] + offset)
    return code
