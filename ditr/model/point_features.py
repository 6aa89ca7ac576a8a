"""2D features of points, kept as what each point reads of the tokens: reading is linear, and tokens are few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ditr.geometry.sampling import Reading, mixed
from ditr.model.sparse_matrix import SparseMatrix


@dataclass(frozen=True, kw_only=True)
class PointFeatures:
    """What the N points of a batch read of the T tokens of its maps, which are frozen."""

    tokens: Tensor
    """(T, C) float32: the maps of all samples, row by row. Nothing is rounded beyond the float16 of the maps."""
    rows: Tensor
    """(N, K) int64 into ``tokens``."""
    weights: Tensor
    """(N, K) float32; those of a point sum to 1."""
    valid: Tensor
    """(N,) bool: the point reads a 2D feature; what the others would read is no feature."""

    def dense(self) -> Tensor:
        """(N, C) what every point reads, the invalid ones too: 50 times the tokens, for looking and for tests."""
        return mixed(self.tokens, Reading(rows=self.rows, weights=self.weights))

    def matrix(self, points: Tensor | None = None) -> SparseMatrix:
        """(M, T) for M of the points, by their numbers, or all: times anything of the tokens it is that of the points.

        What it gives for a point that is not valid is no feature.
        """
        rows, weights = self.rows, self.weights
        if points is not None:
            rows, weights = rows.index_select(0, points), weights.index_select(0, points)
        count, width = rows.shape
        return SparseMatrix(
            columns=rows.flatten(),
            values=weights.flatten(),
            offsets=torch.arange(0, count * width + 1, width, device=rows.device),
            width=len(self.tokens),
        )


def stack(maps: Sequence[Tensor], readings: Sequence[Reading], *, valid: Tensor) -> PointFeatures:
    """Of one (C, Hp, Wp) map and one reading a sample; the grids may differ, the channels not."""
    first = 0
    rows = []
    for tokens, reading in zip(maps, readings, strict=True):
        rows.append(reading.rows + first)
        first += tokens[0].numel()
    return PointFeatures(
        tokens=torch.cat([tokens.flatten(1).T for tokens in maps]).float().contiguous(),
        rows=torch.cat(rows),
        weights=torch.cat([reading.weights for reading in readings]),
        valid=valid,
    )
