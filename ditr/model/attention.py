"""Attention of padded samples, and what a query may not attend to (docs/reference/esam.md, Decoder)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ditr.model.full_precision import LayerNorm
from ditr.model.masks import Masks
from ditr.model.output import Layout
from ditr.model.segments import Segments

ROWS = 64
"""Queries of each sample whose points are weighed at once."""


class Attention(nn.Module):
    """Of B samples at once, added to its input and normed.

    Written out over the parameters of torch's layer: torch's own kernels for it choose by device and size, and of some
    the gradient is another each time.
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = LayerNorm(width)

    def forward(self, x: Tensor, keys: Tensor, *, blocked: Tensor) -> Tensor:
        """(B, Q, width) attends to (B, K, width) where ``blocked`` (B, Q or 1, K) is false, once a row at least."""
        width, heads = self.attn.embed_dim, self.attn.num_heads
        of_query, of_keys = torch.split(self.attn.in_proj_weight, [width, 2 * width])
        query_bias, keys_bias = torch.split(self.attn.in_proj_bias, [width, 2 * width])
        q = linear(x, of_query, query_bias)
        k, v = linear(keys, of_keys, keys_bias).chunk(2, dim=2)
        q, k, v = (
            torch.unflatten(t, 2, (heads, -1)).transpose(1, 2) for t in (q, k, v)
        )  # (B, heads, Q or K, width / heads)
        scores = (q @ k.mT).to(x.dtype) / math.sqrt(width // heads)  # (B, heads, Q, K)
        shares = scores.masked_fill(blocked.unsqueeze(1), -torch.inf).softmax(dim=3)
        out = self.attn.out_proj((shares.to(v.dtype) @ v).transpose(1, 2).flatten(2))
        return cast(Tensor, self.norm(x + out))


@dataclass(frozen=True, kw_only=True)
class PointGroups:
    """Which superpoint each point of a batch belongs to and how much it counts there."""

    superpoints: Segments
    """All N points, packed, in all S superpoints."""
    weights: Tensor
    """(N,) in (0, 2)"""


@torch.no_grad()
def attention_mask(masks: Masks, groups: PointGroups, layout: Layout) -> Tensor:
    """(B, Q, S) bool, true where a query must not look: outside its own mask, unless that leaves it nothing."""
    padding = ~layout.superpoints.valid.unsqueeze(1)  # (B, 1, S)
    if masks.level == "superpoint":
        blocked = _outside(masks.logits(), layout.superpoints.valid)
    else:
        outside = masks.by_parts(lambda logits, samples, _: _outside(logits, layout.points.valid[samples]))
        share = torch.cat([_share(some, groups, layout) for some in torch.split(outside, ROWS, dim=1)], dim=1)
        # The least blocked superpoints of a row stay open, or a row could be blocked whole.
        least = share.masked_fill(padding, torch.inf).amin(dim=2, keepdim=True)
        blocked = (share > 0.5) & (share != least)
    return blocked | padding


def _outside(logits: Tensor, valid: Tensor) -> Tensor:
    """(B, R, P) bool of logits, ``valid`` (B, P): outside of the mask; nowhere if that would be everywhere."""
    outside = logits.sigmoid() < 0.5
    return outside & (~outside & valid.unsqueeze(1)).any(dim=2, keepdim=True)


def _share(outside: Tensor, groups: PointGroups, layout: Layout) -> Tensor:
    """(B, R, N) bool -> (B, R, S): how much of each superpoint is outside, by the weights of its points."""
    by_point = layout.points.pack(outside.mT.contiguous())  # (all N, R)
    by_superpoint = groups.superpoints.mean(by_point * groups.weights.unsqueeze(1))
    return layout.superpoints.pad(by_superpoint).mT
