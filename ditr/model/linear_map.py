"""A fixed linear map whose way back is given: torch's own ways back of such maps add in the order that threads come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Map = Callable[[Tensor], Tensor]


def apply_linear(values: Tensor, there: Map, *, back: Map) -> Tensor:
    """``there`` of the values; their gradient is ``back`` of the result's. ``back`` is the transposed map."""
    out: Tensor = _Linear.apply(values, there, back)  # type: ignore[no-untyped-call]
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, there: Map, back: Map) -> Tensor:
        ctx.back = back
        return there(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradient.contiguous()), None, None
