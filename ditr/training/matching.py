"""Which query answers for which ground-truth thing (docs/reference/esam.md, Loss)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ditr.model.output import HeadOutput

CLASS_COST, BCE_COST, DICE_COST = 0.5, 1.0, 1.0
"""Weights inside the matching cost, ESAM's; apart from the loss weights, so that weighing a term does not re-match."""

OUTSIDE = 1e8
"""Cost of a query whose superpoint does not belong to the thing: never matched."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """M pairs; a thing is in at most one of them."""

    queries: Tensor
    """(M,) int64 rows of the head."""
    things: Tensor
    """(M,) int64, 0..G-1."""

    def __len__(self) -> int:
        return len(self.queries)


@torch.no_grad()
def match(head: HeadOutput, *, masks: Tensor, own: Tensor) -> Matches:
    """Give each thing the cheapest query among those that came from its own superpoints.

    masks: (G, P) float, the things at the head's positions; own: (Q, G) bool, the query's superpoint is inside the
    thing. A pair matches iff it costs strictly less than the second-smallest cost of the thing. So a thing without a
    query of its own gets none, one whose two cheapest queries tie exactly gets none (as in ESAM), and a lone query
    counts as cheapest. Superpoints belong to at most one thing, hence a query answers for at most one.
    """
    cost = pair_cost(head, masks=masks).masked_fill(~own, OUTSIDE)  # (Q, G)
    beyond = cost.new_full((1, cost.shape[1]), OUTSIDE)  # stands in for the second query where there is only one
    second = torch.cat((cost, beyond)).topk(2, dim=0, largest=False).values[1]  # (G,)
    queries, things = torch.nonzero(cost < second, as_tuple=True)
    return Matches(queries=queries, things=things)


def pair_cost(head: HeadOutput, *, masks: Tensor) -> Tensor:
    """(Q, G) cost of each query for each thing, over the head's P positions; masks (G, P) float."""
    thing = head.class_logits.softmax(dim=-1)[:, :1]  # (Q, 1)
    return -CLASS_COST * thing + BCE_COST * _bce(head.masks, masks) + DICE_COST * _dice(head.masks, masks)


def _bce(logits: Tensor, masks: Tensor) -> Tensor:
    """(Q, G) mean binary cross entropy, as softplus(x) - x t, which needs no (Q, G, P) tensor."""
    return functional.softplus(logits).mean(dim=1, keepdim=True) - logits @ masks.T / logits.shape[1]


def _dice(logits: Tensor, masks: Tensor) -> Tensor:
    """(Q, G) 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)."""
    p = logits.sigmoid()
    return 1 - (2 * p @ masks.T + 1) / (p.sum(dim=1, keepdim=True) + masks.sum(dim=1) + 1)
