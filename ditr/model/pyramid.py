"""2D features of points on the voxels of every stride, all channels (docs/reference/fusion.md, Sparse pooling).

The direct path: MinkowskiEngine's own pooling of what every point reads. The model computes the same in less time and
memory (voxel_features.py) and is tested against it; the stage checks look at these levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ditr.model.point_features import PointFeatures
from ditr.model.sparse import SparseTensor, Voxels, max_pool, sum_pool, with_features


@dataclass(frozen=True, kw_only=True)
class Level:
    """2D features on the V voxels of one stride."""

    tensor: SparseTensor
    """(V, C), zero where ``mask`` is false; same map key and row order as the backbone's tensors of this stride."""
    mask: Tensor
    """(V,) bool: at least one valid point lies in the voxel."""


def build_pyramid(
    points: PointFeatures, voxels: Voxels, *, strides: Sequence[int], pooling: Literal["max", "mean"]
) -> dict[int, Level]:
    """The levels of ``strides`` (powers of two); nothing coarser than the coarsest is computed.

    Voxels and points without a 2D feature take no part, neither as zeros in a maximum nor in a mean's denominator.
    """
    level = points_to_voxels(points, voxels)
    levels = {1: level}
    for exponent in range(1, max(strides).bit_length()):
        level = _coarsen_max(level) if pooling == "max" else _coarsen_mean(level)
        levels[2**exponent] = level
    return {stride: levels[stride] for stride in strides}


def points_to_voxels(points: PointFeatures, voxels: Voxels) -> Level:
    """Mean over the valid points of each stride-1 voxel."""
    rows = voxels.voxel_of_point[points.valid]
    size = len(voxels.tensor.F)
    values = points.dense()[points.valid]
    total = values.new_zeros(size, values.shape[1]).index_add(0, rows, values)
    count = rows.bincount(minlength=size)
    features = total / count.clamp(min=1).unsqueeze(1)
    return Level(tensor=with_features(voxels.tensor, features), mask=count > 0)


def _coarsen_max(level: Level) -> Level:
    features = level.tensor.F
    # Not zero, which would beat every negative feature.
    nothing = torch.finfo(features.dtype).min
    filled = torch.where(level.mask.unsqueeze(1), features, nothing)
    return _masked(max_pool(with_features(level.tensor, filled)), count=_children(level))


def _coarsen_mean(level: Level) -> Level:
    count = _children(level)
    total = sum_pool(level.tensor)  # rows outside the mask are zero
    mean = total.F / count.F.clamp(min=1)
    return _masked(with_features(total, mean), count=count)


def _children(level: Level) -> SparseTensor:
    """(V', 1): how many children of each coarser voxel have a 2D feature."""
    return sum_pool(with_features(level.tensor, level.mask.unsqueeze(1).to(level.tensor.F.dtype)))


def _masked(tensor: SparseTensor, *, count: SparseTensor) -> Level:
    mask = count.F > 0
    features = torch.where(mask, tensor.F, 0.0)
    return Level(tensor=with_features(tensor, features), mask=mask.squeeze(1))
