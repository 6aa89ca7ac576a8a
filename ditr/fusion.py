"""What a fusion part of one's own is written with (docs/your_fusion.md).

A part is a class of fields that extends ``FusionPart``; its ``build`` makes a module that extends ``FusionModule``.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ditr.model.fusion import Additions, BatchFeatures, FusionModule
from ditr.model.point_features import PointFeatures
from ditr.model.segments import Segments
from ditr.model.sparse import Voxels
from ditr.model.voxel_features import VoxelFeatures
from ditr.spec.fusion_part import FusionPart, Place, Sizes

__all__ = [
    "Additions",
    "BatchFeatures",
    "FusionModule",
    "FusionPart",
    "Place",
    "PointFeatures",
    "Segments",
    "Sizes",
    "VoxelFeatures",
    "features_of_points",
]


def features_of_points(values: Tensor, *, valid: Tensor) -> BatchFeatures:
    """For tests of a part: (N, C) 2D features of points that read a token of their own each, (N,) bool which read any.

    There are no voxels: of these `ditr check` looks, with real frames.
    """
    rows = torch.arange(len(values), device=values.device)[:, None]
    points = PointFeatures(tokens=values, rows=rows, weights=torch.ones_like(rows, dtype=values.dtype), valid=valid)
    return BatchFeatures(points=points, in_space=cast(Voxels, None))
