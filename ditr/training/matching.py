"""Which query answers for which ground-truth thing (docs/reference/esam.md, Loss)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ditr.model.masks import Masks
from ditr.training.truth import Things

CLASS_COST, BCE_COST, DICE_COST = 0.5, 1.0, 1.0
"""Weights inside the matching cost, ESAM's; apart from the loss weights, so that weighing a term does not re-match."""

OUTSIDE = 1e8
"""Cost of a query whose superpoint does not belong to the thing: never matched."""


@torch.no_grad()
def match(cost: Tensor, *, own: Tensor) -> Tensor:
    """(..., G, Q) bool: each thing's cheapest query among those that came from its own superpoints, at most one.

    cost: (..., Q, G) of ``pair_cost``; own: (..., Q, G) bool, the query's superpoint is inside the thing. A pair
    matches iff it costs strictly less than the second-smallest cost of the thing. So a thing without a query of its own
    gets none, one whose two cheapest queries tie exactly gets none (as in ESAM), and a lone query counts as cheapest.
    Superpoints belong to at most one thing, hence a query answers for at most one.
    """
    cost = cost.masked_fill(~own, OUTSIDE)
    beyond = torch.full_like(cost[..., :1, :], OUTSIDE)  # stands in for the second query where there is only one
    second = torch.cat((cost, beyond), dim=-2).topk(2, dim=-2, largest=False).values[..., 1:, :]
    return (cost < second).mT


@torch.no_grad()
def pair_cost(class_logits: Tensor, masks: Masks, *, things: Things) -> Tensor:
    """(B, R, G) cost of each of R queries, with class logits (B, R, 2), for each thing."""
    thing = class_logits.softmax(dim=2)[:, :, :1]  # (B, R, 1)
    of_masks = [_mask_cost(part.logits(), things) for part in masks.split()]
    return torch.cat(of_masks, dim=1) - CLASS_COST * thing


def _mask_cost(logits: Tensor, things: Things) -> Tensor:
    """(B, R, G) of logits (B, R, P), by matrix products, which need no (B, R, G, P) tensor."""
    inside, everywhere = things.masks, things.everywhere
    # Mean binary cross entropy: -log p inside the thing, -log (1 - p) = x - log p outside.
    log_p = functional.logsigmoid(logits)
    bce = (logits @ (everywhere - inside).mT - log_p @ everywhere.mT) / things.positions
    # 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)
    p = logits.sigmoid()
    dice = 1 - (2 * p @ inside.mT + 1) / (p @ everywhere.mT + inside.sum(dim=2).unsqueeze(1) + 1)
    return BCE_COST * bce + DICE_COST * dice
