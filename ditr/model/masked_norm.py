"""Batch normalisation over some of the rows, which ones and how many only the device knows."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from ditr.model.full_precision import at_least_float32


def masked_batch_norm(x: Tensor, mask: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """(V, C), (V,) bool -> (V, C) what ``norm`` makes of the masked rows alone; the others are nobody's to read.

    In training, running statistics move as ``norm`` moves them; without a masked row they stay. A single one, for which
    ``norm`` raises, has no variance: it becomes NaN, and running statistics stay.
    """
    x = at_least_float32(x)
    mean, var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    if not norm.training:
        return batch_norm(x, mean, var, norm.weight, norm.bias, training=False, eps=norm.eps)
    rows, count = mask.unsqueeze(1), mask.sum()
    of_batch = torch.where(rows, x, 0).sum(dim=0) / count.clamp(min=1)
    centred = torch.where(rows, x - of_batch, 0)
    squares = centred.square().sum(dim=0)
    with torch.no_grad():
        moves = count > 1
        assert norm.momentum is not None, "a mean over all batches is not kept"
        mean.lerp_(of_batch, norm.momentum * moves.to(mean.dtype))
        var.lerp_(squares / (count - 1).clamp(min=1), norm.momentum * moves.to(var.dtype))
        cast(Tensor, norm.num_batches_tracked).add_(moves)
    scale = norm.weight * torch.rsqrt(squares / count.clamp(min=1) + norm.eps)
    return centred * torch.where(count == 1, torch.nan, scale) + norm.bias
