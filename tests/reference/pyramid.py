"""2D features of points on the voxels of every stride, all channels, by grouping rows one level at a time.

The direct path, for tests: the model computes the same in less time and memory (ditr/model/voxel_features.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ditr.model.point_features import PointFeatures
from ditr.model.sparse import SparseTensor, Voxels

Pooling = Literal["max", "mean"]


@dataclass(frozen=True, kw_only=True)
class Level:
    """2D features on the V voxels of one stride."""

    tensor: SparseTensor
    """(V, C), zero where ``mask`` is false; on the backbone's own voxels of this stride."""
    mask: Tensor
    """(V,) bool: at least one valid point lies in the voxel."""


def build_pyramid(
    points: PointFeatures, voxels: Voxels, *, strides: Sequence[int], pooling: Pooling
) -> dict[int, Level]:
    """The levels of ``strides``, powers of two.

    Voxels and points without a 2D feature take no part, neither as zeros in a maximum nor in a mean's denominator.
    """
    of_voxels = voxels.tensor.voxels
    valid = points.valid
    features, mask = _pooled(points.dense()[valid], voxels.voxel_of_point[valid], count=len(of_voxels), pooling="mean")
    levels = {1: Level(tensor=SparseTensor(features=features, voxels=of_voxels), mask=mask)}
    for exponent in range(1, max(strides).bit_length()):
        parents, of_voxels = of_voxels.parents[mask], of_voxels.coarser
        features, mask = _pooled(features[mask], parents, count=len(of_voxels), pooling=pooling)
        levels[2**exponent] = Level(tensor=SparseTensor(features=features, voxels=of_voxels), mask=mask)
    return {stride: levels[stride] for stride in strides}


def _pooled(values: Tensor, rows: Tensor, *, count: int, pooling: Pooling) -> tuple[Tensor, Tensor]:
    """(count, C), zero where no row leads, and where one does."""
    index = rows.unsqueeze(1).expand_as(values)
    reduce = {"max": "amax", "mean": "mean"}[pooling]
    pooled = values.new_zeros(count, values.shape[1]).scatter_reduce(
        0, index, values, reduce=reduce, include_self=False
    )
    return pooled, torch.zeros(count, dtype=torch.bool, device=rows.device).index_fill(0, rows, True)
