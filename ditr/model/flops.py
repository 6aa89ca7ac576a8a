"""Floating point operations of a forward pass, counted while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ditr.data.batch import Batch
from ditr.model.sparse import BatchNorm, Convolved


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Two for each multiplication of a number by a weight, or of two numbers in attention."""

    sparse: int
    """Convolutions over voxels: for every pair of voxels that a kernel connects, its channels in times out."""
    dense: int
    """All other matrix products and attention: projections of 2D features, gates, pooling, the query decoder."""


@torch.no_grad()
def forward_flops(model: nn.Module, batch: Batch) -> Flops:
    """Of ``model(batch)``, which is called; a training step takes about three times as many."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mm: _Product()})
    sparse, elsewhere, before = 0, 0, 0

    def begin(_norm: nn.Module, _inputs: tuple[Convolved]) -> None:
        nonlocal before
        before = counter.get_total_flops()

    def end(_norm: nn.Module, inputs: tuple[Convolved], _out: Any) -> None:
        # Kernels of one voxel may be plain products of torch, which the counter saw: they are sparse ones all the same.
        nonlocal sparse, elsewhere
        (convolved,) = inputs
        *offsets, width, out_width = convolved.kernel.shape
        pairs = convolved.of.voxels.pairs(offsets[0] if offsets else 1, onto=convolved.onto)
        sparse += 2 * pairs * width * out_width
        elsewhere += counter.get_total_flops() - before

    norms = [norm for norm in model.modules() if isinstance(norm, BatchNorm)]
    hooks = [norm.register_forward_pre_hook(begin) for norm in norms]
    hooks += [norm.register_forward_hook(end) for norm in norms]
    try:
        with counter:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return Flops(sparse=sparse, dense=counter.get_total_flops() - elsewhere)


class _Product:
    """Of a matrix product; torch's own count takes a sparse matrix, as colours are averaged by, for a full one."""

    _get_raw = True
    """For torch: to be given tensors, not their shapes."""

    def __call__(self, left: Tensor, right: Tensor, *_: object, **__: object) -> int:
        entries = left.numel() if left.layout == torch.strided else left._nnz()
        return 2 * entries * right.shape[1]
