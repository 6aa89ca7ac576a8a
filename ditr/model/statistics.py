"""Numbers that a model says of a batch: of all samples together, or of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ditr.ranks import ALONE, Ranks


@dataclass(frozen=True)
class OfSamples:
    """Whose each of R rows is."""

    rows: Tensor
    """(R,) int64, 0..B-1."""
    count: int
    """B."""

    def sum(self, values: Tensor) -> Tensor:
        """(R,) -> (B,)"""
        return values.new_zeros(self.count).index_add(0, self.rows, values)

    def spread(self, values: Tensor) -> Tensor:
        """(B,) -> (R,)"""
        return values.index_select(0, self.rows)


def mean_of(values: Tensor, each: OfSamples | None, *, counts: Tensor | None = None, ranks: Ranks = ALONE) -> Tensor:
    """(R,) -> (B,) mean over the rows of each sample, without samples () over all of all ranks; NaN without a row.

    ``counts`` (R,) bool says which rows count.
    """
    ones = torch.ones_like(values) if counts is None else counts.to(values.dtype)
    values = values if counts is None else torch.where(counts, values, 0)
    return total_of(values, each, ranks=ranks) / total_of(ones, each, ranks=ranks)


def total_of(values: Tensor, each: OfSamples | None, *, ranks: Ranks = ALONE) -> Tensor:
    """(R,) -> (B,) sum over the rows of each sample; without samples () over all of all ranks."""
    return ranks.total(values.sum()) if each is None else each.sum(values)


def floats_of_samples(statistics: Mapping[str, Tensor], *, samples: int) -> list[dict[str, float]]:
    """Of each sample, in one transfer from the device; a () number is that of each."""
    if not statistics:
        return [{} for _ in range(samples)]
    values = torch.stack([value.expand(samples) for value in statistics.values()], dim=1).tolist()
    return [dict(zip(statistics, of_sample, strict=True)) for of_sample in values]
