"""Mask logits as the product that they are: those of all queries on all points are too many to be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ditr.model.full_precision import at_least_float32

Level = Literal["superpoint", "point"]

MAX_NUMBERS = {"cpu": 2**21, "cuda": 2**25}
"""Logits that are held at once where all queries' are needed: about what a CPU's cache holds, and 128 MiB of a GPU."""


@dataclass(frozen=True, kw_only=True)
class Masks:
    """R masks of each of B samples at its P positions: logit = row . feature + offset."""

    rows: Tensor
    """(B, R, W)"""
    offsets: Tensor
    """(B, R, 1)"""
    features: Tensor
    """(B, P, W)"""
    level: Level
    """What the positions are."""

    def logits(self) -> Tensor:
        """(B, R, P) float32, of a product in the precision of its factors."""
        product: Tensor = _Product.apply(self.rows, self.offsets, self.features)  # type: ignore[no-untyped-call]
        return at_least_float32(product)

    def chosen(self, answers: Tensor) -> Masks:
        """Of H runs of Q rows, the row of each run for which ``answers`` (B, H, K, Q) is true: H * K rows, of zeros
        where it is nowhere true. A product, whose gradient is one too and not a sum by index."""
        runs = answers.shape[1]
        choose = answers.to(self.rows.dtype)
        rows, offsets = ((choose @ torch.unflatten(x, 1, (runs, -1))).flatten(1, 2) for x in (self.rows, self.offsets))
        return replace(self, rows=rows, offsets=offsets)

    def picked(self, queries: Tensor) -> Masks:
        """The (B, K) rows of those numbers."""
        rows, offsets = (x.take_along_dim(queries.unsqueeze(2), dim=1) for x in (self.rows, self.offsets))
        return replace(self, rows=rows, offsets=offsets)

    def by_parts(self, compute: Callable[[Tensor, slice, slice], Tensor]) -> Tensor:
        """(B, R, ...) put together of what ``compute`` makes of the logits of some samples' and some of their rows."""
        batch, rows, _ = self.rows.shape
        positions, limit = self.features.shape[1], MAX_NUMBERS[self.rows.device.type]
        samples_at_once = min(batch, max(1, limit // (rows * positions)))
        rows_at_once = min(rows, max(1, limit // (samples_at_once * positions)))
        whole = []
        for samples in _runs(batch, samples_at_once):
            parts = [compute(self._part(samples, some).logits(), samples, some) for some in _runs(rows, rows_at_once)]
            whole.append(torch.cat(parts, dim=1))
        return torch.cat(whole)

    def _part(self, samples: slice, rows: slice) -> Masks:
        return replace(
            self,
            rows=self.rows[samples, rows],
            offsets=self.offsets[samples, rows],
            features=self.features[samples],
        )

    def of_sample(self, index: int, *, rows: int, positions: int) -> Tensor:
        """(rows, positions) the first logits of one sample."""
        one = replace(
            self,
            rows=self.rows[index : index + 1, :rows],
            offsets=self.offsets[index : index + 1, :rows],
            features=self.features[index : index + 1, :positions],
        )
        return one.logits().squeeze(0)


def joined(masks: Sequence[Masks]) -> Masks:
    """All rows of masks that share their features, one after the other."""
    return replace(
        masks[0],
        rows=torch.cat([some.rows for some in masks], dim=1),
        offsets=torch.cat([some.offsets for some in masks], dim=1),
    )


def _runs(count: int, size: int) -> Iterator[slice]:
    for first in range(0, count, size):
        yield slice(first, first + size)


class _Product(torch.autograd.Function):
    """torch's own gives the features' gradient transposed, which makes all that follows slow on a CPU."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, offsets: Tensor, features: Tensor) -> Tensor:
        ctx.save_for_backward(rows, features)
        return torch.baddbmm(offsets, rows, features.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, features = ctx.saved_tensors
        return gradient @ features, gradient.sum(dim=2, keepdim=True), gradient.mT @ rows
