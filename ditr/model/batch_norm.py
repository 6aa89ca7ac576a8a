"""Batch norms over some of the rows, which ones and how many only the device knows, and over those of all ranks."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from ditr.model.full_precision import at_least_float32
from ditr.ranks import ALONE, Ranks


class SharedNorm(nn.BatchNorm1d):
    """Has the weights and buffers of a ``BatchNorm1d``, and in training the statistics of what all ranks give it."""

    ranks: Ranks

    @classmethod
    def of(cls, norm: nn.BatchNorm1d, *, ranks: Ranks) -> SharedNorm:
        """With the same parameters and buffers, no copies of them."""
        shared = cls(norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=norm.affine)
        shared._parameters, shared._buffers, shared.ranks = norm._parameters, norm._buffers, ranks
        return shared.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(V, C); in training a single row of all ranks, for which a ``BatchNorm1d`` raises, becomes NaN."""
        if not self.training:
            return super().forward(x)
        return masked_batch_norm(x, x.new_ones(len(x), dtype=torch.bool), self)


def share_norms(model: nn.Module, *, ranks: Ranks) -> None:
    """Every ``BatchNorm1d`` in the model, whoever wrote it, becomes one over all ranks' rows; alone it is that."""
    if ranks.count == 1:
        return
    for name, module in model.named_children():
        if isinstance(module, nn.BatchNorm1d):
            setattr(model, name, SharedNorm.of(module, ranks=ranks))
        else:
            share_norms(module, ranks=ranks)


def ranks_of(norm: nn.BatchNorm1d) -> Ranks:
    """Over whose rows it is."""
    return norm.ranks if isinstance(norm, SharedNorm) else ALONE


def masked_batch_norm(x: Tensor, mask: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """(V, C), (V,) bool -> (V, C) what ``norm`` makes of the masked rows alone; the others are nobody's to read.

    In training, running statistics move as ``norm`` moves them; without a masked row they stay. A single one, for which
    ``norm`` raises, has no variance: it becomes NaN, and running statistics stay.
    """
    x = at_least_float32(x)
    mean, var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    if not norm.training:
        return batch_norm(x, mean, var, norm.weight, norm.bias, training=False, eps=norm.eps)
    ranks = ranks_of(norm)
    rows, count = mask.unsqueeze(1), ranks.total(mask.sum())
    of_batch = ranks.total(torch.where(rows, x, 0).sum(dim=0)) / count.clamp(min=1)
    centred = torch.where(rows, x - of_batch, 0)
    squares = ranks.total(centred.square().sum(dim=0))
    with torch.no_grad():
        moves = count > 1
        assert norm.momentum is not None, "a mean over all batches is not kept"
        mean.lerp_(of_batch, norm.momentum * moves.to(mean.dtype))
        var.lerp_(squares / (count - 1).clamp(min=1), norm.momentum * moves.to(var.dtype))
        cast(Tensor, norm.num_batches_tracked).add_(moves)
    scale = norm.weight * torch.rsqrt(squares / count.clamp(min=1) + norm.eps)
    return centred * torch.where(count == 1, torch.nan, scale) + norm.bias
