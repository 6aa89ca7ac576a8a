"""A fixed sparse matrix by which dense rows are mixed: points or voxels of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import embedding_bag

from ditr.model.full_precision import at_least_float32
from ditr.model.linear_map import apply_linear


@dataclass(frozen=True, kw_only=True)
class Entries:
    """Those of a matrix, E in all, row by row; a place may have several, which are summed."""

    columns: Tensor
    """(E,) int64."""
    values: Tensor
    """(E,) float32."""
    offsets: Tensor
    """(R + 1,) int64: where each row's entries begin, and E."""

    def mix(self, dense: Tensor) -> Tensor:
        """(T, C) -> (R, C) of the same type, summed in float32 at least."""
        full = at_least_float32(dense)
        mixed: Tensor = embedding_bag(
            self.columns,
            full,
            self.offsets,
            per_sample_weights=self.values.to(full.dtype),
            mode="sum",
            include_last_offset=True,
        )
        return mixed.to(dense.dtype)


@dataclass(frozen=True, kw_only=True)
class SparseMatrix:
    """(R, T); ``matrix @ dense`` passes gradients on to ``dense`` alone.

    Sums run in the order of the entries, on every device and with every number of threads.
    """

    entries: Entries
    transposed: Callable[[], Entries]
    """The same column by column, made for a gradient."""

    def __matmul__(self, dense: Tensor) -> Tensor:
        """(T, C) -> (R, C)."""
        return apply_linear(dense, self.entries.mix, back=lambda gradient: self.transposed().mix(gradient))
