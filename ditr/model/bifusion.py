"""Single-scale fusion by a learned gate between each point's 2D and 3D feature (docs/reference/fusion.md, Gate).

What differs from the prior art, on purpose: every layer is built in the constructor; the batch is one pass; a point
without a 2D feature keeps its 3D feature untouched; and the result returns to the backbone's channels through a
residual whose last layer starts at zero, so that the model starts as the 3D-only one exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ditr.model.point_features import PointFeatures
from ditr.model.superpoint_pool import segment_mean
from ditr.spec.models import BiFusionSpec

GATE_HIDDEN = 64
SQUEEZE = 16


@dataclass(frozen=True, kw_only=True)
class FusedPoints:
    """N points after fusion."""

    features: Tensor
    """(N, C) in the channels of the 3D features that came in."""
    balance_loss: Tensor
    """(): weight * (mean gate - target)^2; zero if no point has a 2D feature."""
    statistics: dict[str, Tensor]
    """fusion_2d_ratio (mean gate over the points with a 2D feature), fusion_3d_ratio, fusion_gate_std."""


class BiFusion(nn.Module):
    """The lite gate: one weight a point from an MLP on the two normalised features."""

    def __init__(self, spec: BiFusionSpec, *, channels: int, feature_channels: int) -> None:
        super().__init__()
        width = spec.width
        self.spec = spec
        self.adapt_3d = nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width))
        self.adapt_2d = nn.Sequential(nn.Linear(feature_channels, width), nn.LayerNorm(width))
        # One head for both, so that the gate compares like with like.
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(spec.dropout), nn.LayerNorm(width))
        self.gate = LiteGate(width, dropout=spec.dropout)
        self.squeeze = SqueezeExcite(width)
        self.residual = nn.Linear(width, channels)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def forward(self, features: Tensor, points: PointFeatures, *, sample_of_point: Tensor, samples: int) -> FusedPoints:
        """(N, C) 3D and the 2D features of the points of ``samples`` frames -> the fused (N, C)."""
        rows = points.valid.nonzero().squeeze(1)
        if len(rows) == 0:
            return FusedPoints(features=features, balance_loss=features.new_zeros(()), statistics={})
        in_3d = self.head(self.adapt_3d(features.index_select(0, rows)))
        # The layer acts on the tokens, which are fewer than points; weights that sum to 1 leave its bias as it is.
        adapt, norm = self.adapt_2d
        in_2d = self.head(norm(points.matrix(rows) @ adapt(points.tokens)))
        alpha = self.gate(in_2d, in_3d)
        fused = alpha * in_2d + (1 - alpha) * in_3d
        fused = self.squeeze(fused, sample_of_point[rows], samples=samples)
        out = features + torch.zeros_like(features).index_copy(0, rows, self.residual(fused))
        balance = self.spec.balance_weight * (alpha.mean() - self.spec.balance_target).square()
        return FusedPoints(features=out, balance_loss=balance, statistics=_gate_statistics(alpha.detach()))


class LiteGate(nn.Module):
    """(M, 1) in (0, 1): the share of the 2D feature; about 0.73 at the start."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        last = nn.Linear(GATE_HIDDEN, 1)
        self.layers = nn.Sequential(
            nn.Linear(2 * width, GATE_HIDDEN), nn.LayerNorm(GATE_HIDDEN), nn.ReLU(), nn.Dropout(dropout), last
        )
        for module in self.layers:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, gain=0.5)
                nn.init.zeros_(module.bias)
        nn.init.ones_(last.bias)

    def forward(self, in_2d: Tensor, in_3d: Tensor) -> Tensor:
        """(M, width) twice."""
        both = torch.cat([nn.functional.normalize(in_2d, dim=1), nn.functional.normalize(in_3d, dim=1)], dim=1)
        gate: Tensor = self.layers(both).sigmoid()
        return gate


class SqueezeExcite(nn.Module):
    """Channel weights from each frame's mean feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // SQUEEZE)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid())

    def forward(self, features: Tensor, sample_of_row: Tensor, *, samples: int) -> Tensor:
        """(M, width) rows of ``samples`` frames."""
        weights: Tensor = self.layers(segment_mean(features, sample_of_row, count=samples))
        return features * weights.index_select(0, sample_of_row)


def _gate_statistics(alpha: Tensor) -> dict[str, Tensor]:
    mean = alpha.mean()
    return {
        "fusion_2d_ratio": mean,
        "fusion_3d_ratio": 1 - mean,
        "fusion_gate_std": alpha.std(correction=0),
    }
