"""Query decoder over superpoints with masks on superpoints or points (docs/reference/esam.md, Queries; Decoder)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ditr.model.attention import Attention, PointGroups, attention_mask
from ditr.model.full_precision import LayerNorm
from ditr.model.masks import Level, Masks
from ditr.model.output import HeadOutput, Layout
from ditr.spec.models import DecoderSpec

SEMANTIC_CLASSES = 201
"""200 classes and "none"."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What the decoder says of a batch, as in ``ModelOutput``."""

    heads: tuple[HeadOutput, ...]
    semantic_logits: Tensor


class ScanNetMixQueryDecoder(nn.Module):
    """Queries are superpoints, keys and values are all superpoints of the sample; B samples at once, padded.

    There is one head before the first layer and one after each; head t's mask, thresholded, is what layer t attends to.
    """

    def __init__(self, spec: DecoderSpec, *, in_channels: int) -> None:
        super().__init__()
        width, layers = spec.width, len(spec.mask_levels) - 1
        self.mask_levels = spec.mask_levels
        self.input_proj = nn.Sequential(nn.Linear(in_channels, width), LayerNorm(width), nn.ReLU())
        self.query_proj = _mlp(in_channels, width, width)
        self.cross_attn_layers = nn.ModuleList(Attention(width, heads=spec.heads) for _ in range(layers))
        self.self_attn_layers = nn.ModuleList(Attention(width, heads=spec.heads) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(_FeedForward(width, hidden=spec.feedforward) for _ in range(layers))
        self.out_norm = LayerNorm(width)
        self.out_cls = _mlp(width, width, 2)
        self.x_mask = _mlp(in_channels, width, width)
        self.x_pts_mask = _mlp(in_channels + 3, width, width)
        self.out_sem = nn.Linear(width, SEMANTIC_CLASSES)
        for parameter in self.cross_attn_layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, superpoints: Tensor, points: Tensor, *, queries: Tensor, groups: PointGroups, layout: Layout
    ) -> Decoded:
        """(B, S, C) superpoints, (B, N, 3 + C) points with their coordinates, (B, Q) superpoint of each query."""
        inputs = {"superpoint": superpoints, "point": points}
        hidden = {level: self._mask_mlp(level)[:2](inputs[level]) for level in dict.fromkeys(self.mask_levels)}
        keys = self.input_proj(superpoints)
        x = self.query_proj(_rows(superpoints, queries)).to(keys.dtype)
        normed = [self.out_norm(x)]
        masks = [self._masks(normed[0], hidden, level=self.mask_levels[0])]
        padding = ~layout.queries.valid.unsqueeze(1)  # (B, 1, Q)
        layers = zip(self.cross_attn_layers, self.self_attn_layers, self.ffn_layers, strict=True)
        for (cross, own, feedforward), level in zip(layers, self.mask_levels[1:], strict=True):
            x = cross(x, keys, blocked=attention_mask(masks[-1], groups, layout))
            x = feedforward(own(x, x, blocked=padding))
            normed.append(self.out_norm(x))
            masks.append(self._masks(normed[-1], hidden, level=level))
        with torch.autocast(x.device.type, enabled=False):  # half precision would make equal scores of unlike queries
            class_logits = self.out_cls(torch.stack(normed)).unbind()
            semantic_logits = self.out_sem(normed[-1])
        heads = (HeadOutput(class_logits=c, masks=m) for c, m in zip(class_logits, masks, strict=True))
        return Decoded(heads=tuple(heads), semantic_logits=semantic_logits)

    def _masks(self, normed: Tensor, hidden: Mapping[Level, Tensor], *, level: Level) -> Masks:
        """A mask logit is the product of a query and a mask feature. The last layer of the mask features is linear: it
        is applied to the queries instead, which are a hundredth of the points."""
        last = cast(nn.Linear, self._mask_mlp(level)[-1])
        return Masks(
            rows=normed @ last.weight,
            offsets=(normed @ last.bias).unsqueeze(2),
            features=hidden[level],
            level=level,
        )

    def _mask_mlp(self, level: Level) -> nn.Sequential:
        return self.x_pts_mask if level == "point" else self.x_mask


def select_queries(count: int, *, fraction: float, seed: int) -> Tensor:
    """A random (Q,) choice of the superpoints 0..count-1; the share drawn is uniform between ``fraction`` and 1."""
    generator = torch.Generator().manual_seed(seed)
    share = fraction + (1 - fraction) * float(torch.rand((), generator=generator, dtype=torch.float64))
    size = min(count, math.ceil(share * count))
    return torch.randperm(count, generator=generator)[:size]


class _FeedForward(nn.Module):
    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        # The reference has a dropout of 0 at index 2; it keeps the second layer's name.
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width))
        self.norm = LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(x + self.net(x)))


def _mlp(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, out_channels))


def _rows(padded: Tensor, chosen: Tensor) -> Tensor:
    """(B, S, C) -> (B, Q, C) by (B, Q) numbers within each sample."""
    batch, length, _ = padded.shape
    starts = torch.arange(0, batch * length, length, device=padded.device).unsqueeze(1)
    return torch.unflatten(padded.flatten(0, 1).index_select(0, (starts + chosen).flatten()), 0, chosen.shape)
