"""2D features of points, kept as what each point reads of the tokens: reading is linear, and tokens are few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ditr.geometry.sampling import Reading, mixed
from ditr.model.segments import Segments
from ditr.model.sparse_matrix import Entries, SparseMatrix


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
    token_counts: tuple[int, ...] = ()
    """Tokens of each sample, which sum to T; empty where nobody said."""

    def dense(self) -> Tensor:
        """(N, C) what every point reads, the invalid ones too: 50 times the tokens, for looking and for tests."""
        return mixed(self.tokens, Reading(rows=self.rows, weights=self.weights))

    def matrix(self, groups: Segments | None = None, *, shares: Tensor | None = None) -> SparseMatrix:
        """(N, T): times anything of the tokens it is that of the points; or (M, T), of sums over M groups of points.

        What it gives for a point that is not valid is no feature.

        Parameters
        ----------
        shares: (N,) float32 by which each point is multiplied.
        """
        rows, weights = self.rows, self.weights if shares is None else self.weights * shares[:, None]
        count, width = rows.shape
        offsets = torch.arange(count + 1, device=rows.device) if groups is None else groups.offsets
        if groups is not None:
            rows, weights = rows.index_select(0, groups.order), weights.index_select(0, groups.order)
        return SparseMatrix(
            entries=Entries(columns=rows.flatten(), values=weights.flatten(), offsets=offsets * width),
            transposed=lambda: self._by_token(groups, shares=shares),
        )

    def _by_token(self, groups: Segments | None, *, shares: Tensor | None) -> Entries:
        """Of the transposed matrix."""
        points, weights, offsets = self._readers
        return Entries(
            columns=points if groups is None else groups.of_row.index_select(0, points),
            values=weights if shares is None else weights * shares.index_select(0, points),
            offsets=offsets,
        )

    @cached_property
    def _readers(self) -> tuple[Tensor, Tensor, Tensor]:
        """(N * K,) points and weights, token by token, and (T + 1,) where each token's begin."""
        readings = Segments(of_row=self.rows.flatten(), count=len(self.tokens))
        points = readings.order.div(self.rows.shape[1], rounding_mode="floor")
        return points, self.weights.flatten().index_select(0, readings.order), readings.offsets


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
        token_counts=tuple(tokens[0].numel() for tokens in maps),
    )
