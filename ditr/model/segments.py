"""Sums, means and maxima of rows that belong together, in one fixed order on every device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from ditr.model.linear_map import apply_linear


@dataclass(frozen=True, kw_only=True)
class Segments:
    """N rows in M segments; of an empty one there is a sum, and neither a mean nor a maximum.

    torch's own sums by index are in another order on a GPU each time, or sort all that they add.
    """

    of_row: Tensor
    """(N,) int64, 0..M-1 in any order."""
    count: int
    """M."""

    def sum(self, values: Tensor) -> Tensor:
        """(N, C) -> (M, C), each in the order of its rows."""
        return apply_linear(values, self._sum, back=self._spread)

    def mean(self, values: Tensor) -> Tensor:
        """(N, C) -> (M, C)."""
        return self.sum(values) / self.offsets.diff().unsqueeze(1)

    def maximum(self, values: Tensor) -> Tensor:
        """(N, C) -> (M, C); equal rows share the gradient."""
        out: Tensor = _Maximum.apply(values, self)  # type: ignore[no-untyped-call]
        return out

    def spread(self, values: Tensor) -> Tensor:
        """(M, C) -> (N, C): to every row its segment's."""
        return apply_linear(values, self._spread, back=self._sum)

    def _sum(self, values: Tensor) -> Tensor:
        return embedding_bag(self.order, values, self.offsets, mode="sum", include_last_offset=True)

    def _spread(self, values: Tensor) -> Tensor:
        return values.index_select(0, self.of_row)

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        ids, order = self.of_row.sort(stable=True)
        return ids, order

    @property
    def order(self) -> Tensor:
        """(N,) the rows of segment 0, then those of 1, ..."""
        return self._sorted[1]

    @cached_property
    def offsets(self) -> Tensor:
        """(M + 1,) where each segment begins in this order, and N."""
        return torch.searchsorted(self._sorted[0], torch.arange(self.count + 1, device=self.of_row.device))


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Segments) -> Tensor:
        index = segments.of_row.unsqueeze(1).expand_as(values)
        start = values.new_full((segments.count, values.shape[1]), -torch.inf)
        out = start.scatter_reduce(0, index, values, reduce="amax")
        ctx.save_for_backward(values, out)
        ctx.segments = segments
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        values, out = ctx.saved_tensors
        segments: Segments = ctx.segments
        hits = (values == segments._spread(out)).to(gradient.dtype)
        return hits * segments._spread(gradient / segments._sum(hits)), None
