"""Single-scale fusion by a learned gate between each point's 2D and 3D feature (docs/reference/fusion.md, Gate).

What differs from the prior art, on purpose: every layer is built in the constructor; the batch is one pass; a point
without a 2D feature keeps its 3D feature untouched; and the result returns to the backbone's channels through a
residual whose last layer starts at zero, so that the model starts as the 3D-only one exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ditr.model.full_precision import LayerNorm
from ditr.model.fusion import BatchFeatures, FusionModule
from ditr.model.padding import Padding
from ditr.model.sample_dropout import SampleDropout, SampleSequential
from ditr.model.statistics import OfSamples, mean_of
from ditr.spec.fusion import BiFusionSpec
from ditr.spec.fusion_part import Sizes

GATE_HIDDEN = 64
SQUEEZE = 16


class BiFusion(FusionModule):
    """The lite gate: one weight a point from an MLP on the two normalised features."""

    def __init__(self, spec: BiFusionSpec, *, sizes: Sizes) -> None:
        super().__init__()
        width = spec.width
        self.spec = spec
        self.adapt_3d = nn.Sequential(nn.Linear(sizes.points, width), LayerNorm(width))
        self.adapt_2d = nn.Sequential(nn.Linear(sizes.features, width), LayerNorm(width))
        # One head for both, so that the gate compares like with like.
        self.head = SampleSequential(nn.Linear(width, width), nn.ReLU(), SampleDropout(spec.dropout), LayerNorm(width))
        self.gate = LiteGate(width, dropout=spec.dropout)
        self.squeeze = SqueezeExcite(width)
        self.residual = nn.Linear(width, sizes.points)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        """Every point goes through, and those without a 2D feature have no part in what comes out: they are few, and
        how many there are is for the device to know.

        Losses: balance_loss, weight * (mean gate - target)^2, zero if no point has a 2D feature. Statistics:
        fusion_2d_ratio (mean gate over the points with a 2D feature), fusion_3d_ratio, fusion_gate_std; in training of
        all samples together, in evaluation of each; NaN if no point has a feature.
        """
        points, samples = features.points, features.samples
        in_3d = self.head(self.adapt_3d(x), features)
        # The layer acts on the tokens, which are fewer than points; weights that sum to 1 leave its bias as it is.
        adapt, norm = self.adapt_2d
        in_2d = self.head(norm(points.matrix() @ adapt(points.tokens)), features)
        alpha = self.gate(in_2d, in_3d, features)
        fused = alpha * in_2d + (1 - alpha) * in_3d
        valid = points.valid.unsqueeze(1)
        fused = self.squeeze(fused, valid, samples=samples)
        out = x + torch.where(valid, self.residual(fused), 0)
        count, gates = features.total(valid.sum()), features.total(torch.where(valid, alpha, 0).sum())
        off = torch.where(count > 0, gates / count.clamp(min=1) - self.spec.balance_target, 0)
        features.losses["balance_loss"] = self.spec.balance_weight * off.square()
        features.statistics.update(_gate_statistics(alpha.detach(), features, of_batch=self.training))
        return out


class LiteGate(nn.Module):
    """(M, 1) in (0, 1): the share of the 2D feature; about 0.73 at the start."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        last = nn.Linear(GATE_HIDDEN, 1)
        self.layers = SampleSequential(
            nn.Linear(2 * width, GATE_HIDDEN), LayerNorm(GATE_HIDDEN), nn.ReLU(), SampleDropout(dropout), last
        )
        for module in self.layers:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, gain=0.5)
                nn.init.zeros_(module.bias)
        nn.init.ones_(last.bias)

    def forward(self, in_2d: Tensor, in_3d: Tensor, features: BatchFeatures) -> Tensor:
        """(M, width) twice."""
        both = torch.cat([nn.functional.normalize(in_2d, dim=1), nn.functional.normalize(in_3d, dim=1)], dim=1)
        gate: Tensor = self.layers(both, features).to(both.dtype).sigmoid()
        return gate


class SqueezeExcite(nn.Module):
    """Channel weights from each frame's mean feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // SQUEEZE)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid())

    def forward(self, features: Tensor, valid: Tensor, *, samples: Padding) -> Tensor:
        """(N, width) of the points of all samples; (N, 1) bool, which of them count in their sample's mean."""
        counts = samples.pad(valid) & samples.valid.unsqueeze(2)  # (B, L, 1)
        means = torch.where(counts, samples.pad(features), 0).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
        weights: Tensor = self.layers(means)
        return samples.pack(samples.pad(features) * weights.unsqueeze(1))


def _gate_statistics(alpha: Tensor, features: BatchFeatures, *, of_batch: bool) -> dict[str, Tensor]:
    """Of (N, 1) gates, of which those of points with a feature count: of all, or of each sample."""
    samples, valid, ranks = features.samples, features.points.valid, features.ranks
    each = None if of_batch else OfSamples(samples.sample_of_row, len(samples.counts))
    alpha = alpha.squeeze(1)
    mean = mean_of(alpha, each, counts=valid, ranks=ranks)
    apart = alpha - (mean if each is None else each.spread(mean))
    spread = mean_of(apart.square(), each, counts=valid, ranks=ranks).sqrt()
    return {"fusion_2d_ratio": mean, "fusion_3d_ratio": 1 - mean, "fusion_gate_std": spread}
