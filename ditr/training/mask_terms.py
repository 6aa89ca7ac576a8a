"""How far masks are from things: what a query would cost a thing, and what it loses if it answers for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid


def mask_terms(logits: Tensor, *, inside: Tensor, everywhere: Tensor) -> tuple[Tensor, Tensor]:
    """Mean binary cross entropy over the P positions and dice loss of (..., P) logits, each (...).

    ``inside`` is 1 in the thing that a mask is compared with, ``everywhere`` is 1 and at padding 0; both are of shapes
    that logits' is broadcast from. Dice is 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1).
    """
    bce, both, p = _Sums.apply(logits, inside, everywhere)  # type: ignore[no-untyped-call]
    return bce / everywhere.sum(dim=-1), 1 - (2 * both + 1) / (p + inside.sum(dim=-1) + 1)


class _Sums(torch.autograd.Function):
    """Over positions: of -log p inside and -log (1 - p) outside, of p inside, and of p. Only p is kept for later."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, inside: Tensor, everywhere: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p = logits.sigmoid()
        ctx.save_for_backward(p, inside, everywhere)
        log_right = logsigmoid(torch.addcmul(-logits, logits, inside, value=2))  # of x inside and of -x outside
        return -(log_right * everywhere).sum(dim=-1), (p * inside).sum(dim=-1), (p * everywhere).sum(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, bce: Tensor, both: Tensor, total: Tensor) -> tuple[Tensor, None, None]:
        p, inside, everywhere = ctx.saved_tensors
        bce, both, total = (gradient.unsqueeze(-1) for gradient in (bce, both, total))
        return (bce * (p - inside) + (both * inside + total) * p * (1 - p)) * everywhere, None, None
