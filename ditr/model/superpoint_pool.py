"""Geometry-aware pooling of point features to superpoints (docs/reference/esam.md, Pool)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class PooledSuperpoints:
    """S superpoints of C channels, pooled from N points."""

    features: Tensor
    """(S, C)"""
    point_weights: Tensor
    """(N,) in (0, 2): how much each point counted."""


class GeoAwarePooling(nn.Module):
    """A weighted mean of each superpoint's point features plus a code of its shape; all samples at once."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pts_proj1 = nn.Sequential(
            nn.Linear(3, channels),
            nn.LayerNorm(channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
        )
        self.pts_proj2 = nn.Sequential(
            nn.Linear(2 * channels, channels),
            nn.LayerNorm(channels),
            nn.ReLU(),
            nn.Linear(channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor, xyz: Tensor, superpoints: Tensor, *, count: int) -> PooledSuperpoints:
        """(N, C) features and (N, 3) metres of points in superpoints (N,) 0..count-1, none of which is empty."""
        shape = self.pts_proj1(_normalise(xyz, superpoints, count=count))
        code = segment_max(shape, superpoints, count=count)
        weights = 2 * self.pts_proj2(torch.cat([shape, code.index_select(0, superpoints)], dim=1))
        pooled = segment_mean(features * weights, superpoints, count=count) + code
        return PooledSuperpoints(features=pooled, point_weights=weights.squeeze(1))


def segment_mean(values: Tensor, segments: Tensor, *, count: int) -> Tensor:
    """(N, C) -> (count, C) mean of each segment's rows; an empty segment's is zero."""
    total = values.new_zeros(count, values.shape[1]).index_add(0, segments, values)
    return total / segments.bincount(minlength=count).clamp(min=1).unsqueeze(1)


def segment_max(values: Tensor, segments: Tensor, *, count: int) -> Tensor:
    """(N, C) -> (count, C) maximum of each segment's rows; none is empty, and equal rows share the gradient."""
    index = segments.unsqueeze(1).expand_as(values)
    # Not zero: where the maximum is zero as well, torch gives the start a share of the gradient.
    start = values.new_full((count, values.shape[1]), -torch.inf)
    return start.scatter_reduce(0, index, values, reduce="amax")


def _normalise(xyz: Tensor, superpoints: Tensor, *, count: int) -> Tensor:
    """(N, 3) positions relative to the superpoint's centre, in units of its longest side."""
    centre = segment_mean(xyz, superpoints, count=count)
    extent = segment_max(xyz, superpoints, count=count) + segment_max(-xyz, superpoints, count=count)
    side = extent.amax(dim=1, keepdim=True)
    return (xyz - centre.index_select(0, superpoints)) / (side.index_select(0, superpoints) + 0.01)
