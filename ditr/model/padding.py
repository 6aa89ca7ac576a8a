"""Samples of different lengths as one tensor: their rows one after the other, or each padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, kw_only=True)
class Padding:
    """B samples of different counts: R rows in all when packed, B x L when padded to the L of the longest sample.

    Counts are known to the host, so nothing here waits for the device.
    """

    counts: tuple[int, ...]
    """Rows of each sample, at least 1."""
    sizes: Tensor
    """(B,) int64: ``counts`` on the device."""

    @classmethod
    def of(cls, counts: Sequence[int], *, device: torch.device) -> Padding:
        return cls(counts=tuple(counts), sizes=sent(torch.tensor(counts), device=device))

    @property
    def length(self) -> int:
        """L."""
        return max(self.counts)

    @cached_property
    def valid(self) -> Tensor:
        """(B, L) bool: not padding."""
        return self._places < self.sizes[:, None]

    @cached_property
    def starts(self) -> Tensor:
        """(B,) int64: the packed row with which each sample begins."""
        return self.sizes.cumsum(0) - self.sizes

    @cached_property
    def sample_of_row(self) -> Tensor:
        """(R,) int64."""
        samples = torch.arange(len(self.counts), device=self.sizes.device)
        return samples.repeat_interleave(self.sizes, output_size=sum(self.counts))

    def pad(self, rows: Tensor) -> Tensor:
        """(R, ...) packed -> (B, L, ...); padding holds copies of some row, which are nobody's to read."""
        if self._even:
            return torch.unflatten(rows, 0, (len(self.counts), self.length))
        out: Tensor = _Pad.apply(rows, self._row_of_place, self._place_of_row)  # type: ignore[no-untyped-call]
        return torch.unflatten(out, 0, (len(self.counts), self.length))

    def pack(self, padded: Tensor) -> Tensor:
        """(B, L, ...) -> (R, ...)."""
        rows = padded.flatten(0, 1)
        return rows if self._even else rows.index_select(0, self._place_of_row)

    def of_sample(self, index: int, padded: Tensor) -> Tensor:
        """(B, L, ...) -> the (count, ...) of one sample."""
        return padded[index, : self.counts[index]]

    @property
    def _even(self) -> bool:
        return min(self.counts) == max(self.counts)

    @cached_property
    def _places(self) -> Tensor:
        return torch.arange(self.length, device=self.sizes.device)

    @cached_property
    def _row_of_place(self) -> Tensor:
        """(B * L,) int64; padding reads its sample's last row."""
        within = torch.minimum(self._places, self.sizes[:, None] - 1)
        return (self.starts[:, None] + within).flatten()

    @cached_property
    def _place_of_row(self) -> Tensor:
        """(R,) int64."""
        rows = torch.arange(len(self.sample_of_row), device=self.sizes.device)
        begins = torch.arange(len(self.counts), device=self.sizes.device) * self.length
        return rows + (begins - self.starts).index_select(0, self.sample_of_row)


def sent(values: Tensor, *, device: torch.device) -> Tensor:
    """A tensor of the host on the device; a copy to a GPU starts from pinned memory, so that the host goes on."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class _Pad(torch.autograd.Function):
    """A selection of rows; padding has no gradient, so that the way back is a selection as well, and no sum."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, row_of_place: Tensor, place_of_row: Tensor) -> Tensor:
        ctx.place_of_row = place_of_row
        return rows.index_select(0, row_of_place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.place_of_row), None, None
