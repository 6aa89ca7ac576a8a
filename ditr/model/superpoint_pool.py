"""Geometry-aware pooling of point features to superpoints (docs/reference/esam.md, Pool)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import linear

from ditr.model.full_precision import LayerNorm
from ditr.model.segments import Segments


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
            LayerNorm(channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            LayerNorm(channels),
        )
        self.pts_proj2 = nn.Sequential(
            nn.Linear(2 * channels, channels),
            LayerNorm(channels),
            nn.ReLU(),
            nn.Linear(channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor, xyz: Tensor, superpoints: Segments) -> PooledSuperpoints:
        """(N, C) features and (N, 3) metres of the points of all superpoints."""
        shape = self.pts_proj1(_normalise(xyz, superpoints))
        code = superpoints.maximum(shape)
        weights = 2 * self._share(shape, code, superpoints).to(code.dtype)
        pooled = superpoints.mean(features * weights) + code
        return PooledSuperpoints(features=pooled, point_weights=weights.squeeze(1))

    def _share(self, shape: Tensor, code: Tensor, superpoints: Segments) -> Tensor:
        """(N, 1) ``pts_proj2`` of each point's shape beside its superpoint's code, to which its half of the first layer
        is applied before it is spread over the points."""
        first, others = cast(nn.Linear, self.pts_proj2[0]), self.pts_proj2[1:]
        of_point, of_code = first.weight.chunk(2, dim=1)
        out = linear(shape, of_point, first.bias) + superpoints.spread(linear(code, of_code).to(code.dtype))
        return cast(Tensor, others(out))


def _normalise(xyz: Tensor, superpoints: Segments) -> Tensor:
    """(N, 3) positions relative to the superpoint's centre, in units of its longest side."""
    centre = superpoints.mean(xyz)
    extent = superpoints.maximum(xyz) + superpoints.maximum(-xyz)
    side = extent.amax(dim=1, keepdim=True)
    return (xyz - superpoints.spread(centre)) / (superpoints.spread(side) + 0.01)
