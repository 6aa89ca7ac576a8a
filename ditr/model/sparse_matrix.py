"""A fixed sparse matrix by which dense rows are mixed: points or voxels of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from ditr.model.full_precision import at_least_float32


@dataclass(frozen=True, kw_only=True)
class SparseMatrix:
    """(R, T) with E entries, row by row; ``matrix @ dense`` passes gradients on to ``dense`` alone.

    Sums run in the order of the entries, on every device and with every number of threads.
    """

    columns: Tensor
    """(E,) int64."""
    values: Tensor
    """(E,) float32."""
    offsets: Tensor
    """(R + 1,) int64: where each row's entries begin, and E."""
    width: int
    """T."""

    def __matmul__(self, dense: Tensor) -> Tensor:
        """(T, C) -> (R, C), in float32 also of half precision."""
        out: Tensor = _Product.apply(at_least_float32(dense), self)  # type: ignore[no-untyped-call]
        return out

    @property
    def rows(self) -> Tensor:
        """(E,) int64."""
        counts = self.offsets.diff()
        every = torch.arange(len(counts), device=counts.device)
        return every.repeat_interleave(counts, output_size=len(self.columns))

    @cached_property
    def transposed(self) -> SparseMatrix:
        """(T, R)."""
        columns, order = self.columns.sort(stable=True)
        return SparseMatrix(
            columns=self.rows[order],
            values=self.values[order],
            offsets=torch.searchsorted(columns, torch.arange(self.width + 1, device=columns.device)),
            width=len(self.offsets) - 1,
        )


def from_entries(rows: Tensor, columns: Tensor, values: Tensor, *, height: int, width: int) -> SparseMatrix:
    """Of (E,) entries in any order; those of the same place are summed."""
    place, order = (rows * width + columns).sort(stable=True)
    places, counts = torch.unique_consecutive(place, return_counts=True)
    return SparseMatrix(
        columns=places % width,
        values=torch.segment_reduce(values[order], "sum", lengths=counts, unsafe=True),
        offsets=_offsets((places // width).bincount(minlength=height)),
        width=width,
    )


def _offsets(counts: Tensor) -> Tensor:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


class _Product(torch.autograd.Function):
    """torch's own backward of ``embedding_bag`` adds in the order in which threads come; a second product does not."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        return _product(matrix, dense)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _product(ctx.matrix.transposed, gradient.contiguous()), None


def _product(matrix: SparseMatrix, dense: Tensor) -> Tensor:
    return embedding_bag(
        matrix.columns,
        dense,
        matrix.offsets,
        per_sample_weights=matrix.values,
        mode="sum",
        include_last_offset=True,
    )
