"""Which query answers for which ground-truth thing (docs/reference/esam.md, Loss)."""

from __future__ import annotations

import torch
from torch import Tensor

from ditr.model.masks import Masks
from ditr.training.mask_terms import mask_terms
from ditr.training.truth import Things

CLASS_COST, BCE_COST, DICE_COST = 0.5, 1.0, 1.0
"""Weights inside the matching cost, ESAM's; apart from the loss weights, so that weighing a term does not re-match."""

OUTSIDE = 1e8
"""Cost of a query whose superpoint does not belong to the thing: never matched."""


@torch.no_grad()
def match(cost: Tensor, *, query_owners: Tensor, things: int) -> Tensor:
    """(..., G, Q) bool: each thing's cheapest query among those that came from its own superpoints, at most one.

    cost: (..., Q) of each query for the thing that it came from, ``query_owners`` (..., Q), which is -1 for none. A
    pair matches iff it costs strictly less than the second-smallest cost of the thing. So a thing without a query of
    its own gets none, one whose two cheapest queries tie exactly gets none (as in ESAM), and a lone query counts as
    cheapest. Superpoints belong to at most one thing, hence a query answers for at most one.
    """
    number = torch.arange(things, device=cost.device).unsqueeze(1)
    costs = torch.where(query_owners.unsqueeze(-2) == number, cost.unsqueeze(-2), OUTSIDE)  # (..., G, Q)
    beyond = torch.full_like(costs[..., :1], OUTSIDE)  # stands in for the second query where there is only one
    second = torch.cat((costs, beyond), dim=-1).topk(2, dim=-1, largest=False).values[..., 1:]
    return costs < second


@torch.no_grad()
def own_cost(class_logits: Tensor, masks: Masks, *, query_owners: Tensor, things: Things) -> Tensor:
    """(B, R) cost of each of R queries, with class logits (B, R, 2), for the thing of its own superpoint, (B, R).

    For one that came from no thing the number means nothing.
    """
    batch, count, _ = things.masks.shape
    starts = torch.arange(0, batch * count, count, device=query_owners.device).unsqueeze(1)
    of_all = starts + query_owners.clamp(min=0)  # (B, R) into the things of the whole batch

    def cost(logits: Tensor, samples: slice, rows: slice) -> Tensor:
        inside = things.masks.flatten(0, 1).index_select(0, of_all[samples, rows].flatten()).view_as(logits)
        bce, dice = mask_terms(logits, inside=inside, everywhere=things.everywhere[samples])
        return BCE_COST * bce + DICE_COST * dice

    return masks.by_parts(cost) - CLASS_COST * class_logits.softmax(dim=2)[..., 0]
