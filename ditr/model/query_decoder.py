"""Query decoder over superpoints with masks on superpoints or points (docs/reference/esam.md, Queries; Decoder)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ditr.model.output import HeadOutput, SampleOutput
from ditr.model.superpoint_pool import segment_mean
from ditr.spec.models import DecoderSpec

SEMANTIC_CLASSES = 201
"""200 classes and "none"."""


class ScanNetMixQueryDecoder(nn.Module):
    """One sample at a time: queries are superpoints, keys and values are all superpoints of the sample.

    There is one head before the first layer and one after each; head t's mask, thresholded, is what layer t attends to.
    """

    def __init__(self, spec: DecoderSpec, *, in_channels: int) -> None:
        super().__init__()
        width, layers = spec.width, len(spec.mask_levels) - 1
        self.mask_levels = spec.mask_levels
        self.input_proj = nn.Sequential(nn.Linear(in_channels, width), nn.LayerNorm(width), nn.ReLU())
        self.query_proj = _mlp(in_channels, width, width)
        self.cross_attn_layers = nn.ModuleList(_CrossAttention(width, heads=spec.heads) for _ in range(layers))
        self.self_attn_layers = nn.ModuleList(_SelfAttention(width, heads=spec.heads) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(_FeedForward(width, hidden=spec.feedforward) for _ in range(layers))
        self.out_norm = nn.LayerNorm(width)
        self.out_cls = _mlp(width, width, 2)
        self.x_mask = _mlp(in_channels, width, width)
        self.x_pts_mask = _mlp(in_channels + 3, width, width)
        self.out_sem = nn.Linear(width, SEMANTIC_CLASSES)
        for parameter in self.cross_attn_layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, superpoint_features: Tensor, point_features: Tensor, *, queries: Tensor, groups: PointGroups
    ) -> SampleOutput:
        """(S, C) superpoints, (N, 3 + C) points with their continuous coordinates, (Q,) superpoint of each query."""
        keys = self.input_proj(superpoint_features)
        mask_features = {"superpoint": self.x_mask(superpoint_features)}
        if "point" in self.mask_levels:
            mask_features["point"] = self.x_pts_mask(point_features)
        x = self.query_proj(superpoint_features.index_select(0, queries))
        heads = [self._head(x, mask_features, level=self.mask_levels[0])]
        layers = zip(self.cross_attn_layers, self.self_attn_layers, self.ffn_layers, strict=True)
        for (cross, own, feedforward), level in zip(layers, self.mask_levels[1:], strict=True):
            x = feedforward(own(cross(x, keys, blocked=attention_mask(heads[-1], groups))))
            heads.append(self._head(x, mask_features, level=level))
        return SampleOutput(
            heads=tuple(heads), semantic_logits=self.out_sem(self.out_norm(x)), query_superpoints=queries
        )

    def _head(
        self, x: Tensor, mask_features: dict[str, Tensor], *, level: Literal["superpoint", "point"]
    ) -> HeadOutput:
        x = self.out_norm(x)
        return HeadOutput(class_logits=self.out_cls(x), masks=x @ mask_features[level].T, level=level)


@dataclass(frozen=True, kw_only=True)
class PointGroups:
    """Which superpoint each of N points belongs to and how much it counts there."""

    superpoints: Tensor
    """(N,) int64"""
    weights: Tensor
    """(N,) in (0, 2)"""
    count: int
    """S"""


@torch.no_grad()
def attention_mask(head: HeadOutput, groups: PointGroups) -> Tensor:
    """(Q, S) bool, true where a query must not look: outside its own mask, unless that leaves it nothing."""
    blocked = head.masks.sigmoid() < 0.5
    blocked = blocked & ~blocked.all(dim=1, keepdim=True)
    if head.level == "superpoint":
        return blocked
    share = segment_mean((blocked * groups.weights).T, groups.superpoints, count=groups.count).T
    # The least blocked superpoints of a row stay open, or a row could be blocked whole.
    return (share > 0.5) & (share != share.amin(dim=1, keepdim=True))


def select_queries(count: int, *, fraction: float, seed: int) -> Tensor:
    """A random (Q,) choice of the superpoints 0..count-1; the share drawn is uniform between ``fraction`` and 1."""
    generator = torch.Generator().manual_seed(seed)
    share = fraction + (1 - fraction) * float(torch.rand((), generator=generator, dtype=torch.float64))
    size = min(count, math.ceil(share * count))
    return torch.randperm(count, generator=generator)[:size]


class _CrossAttention(nn.Module):
    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, keys: Tensor, *, blocked: Tensor) -> Tensor:
        out, _ = self.attn(x[None], keys[None], keys[None], attn_mask=blocked, need_weights=False)
        return cast(Tensor, self.norm(x + out[0]))


class _SelfAttention(nn.Module):
    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.attn(x[None], x[None], x[None], need_weights=False)
        return cast(Tensor, self.norm(x + out[0]))


class _FeedForward(nn.Module):
    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        # The reference has a dropout of 0 at index 2; it keeps the second layer's name.
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(x + self.net(x)))


def _mlp(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, out_channels))
