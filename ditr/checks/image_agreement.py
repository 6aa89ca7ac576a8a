"""Whether a map is of an image, upright and in place: from the two alone, so that maps of any origin can be asked.

Whatever a network has learned, the tokens at an edge or on a textured thing differ from their neighbours there. So the
difference of every token from the tokens around it is compared with the same difference of colours and gradients, by
linear kernel alignment (Kornblith et al. 2019), which needs no training. Slow changes over the image, such as what
position embeddings leave in tokens, cancel out. A seeded network's map agrees with its own image ten times better than
with another one, and clearly worse with its own half a token beside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

MIN_GRID = 6
"""Rows and columns of tokens below which there is too little to compare."""
_WINDOW = 5
_LEAST = 1e-6


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Where a grid is laid over an image: nothing but defaults is where it belongs."""

    down: float = 0.0
    """Tokens."""
    right: float = 0.0
    """Tokens."""
    taller: float = 0.0
    """Tokens by which the top and the bottom are farther from the middle."""
    wider: float = 0.0
    """Tokens by which the left and the right end are farther from the middle."""


IN_PLACE = Shift()


@dataclass(frozen=True, kw_only=True)
class TokenContrast:
    """What one map tells: T visible tokens, each less those around it."""

    values: Tensor
    """(T, C) float32, every channel of variance 1."""
    norm: float
    """Frobenius norm of values' values."""
    rows: int
    columns: int
    cell_hw: tuple[float, float]
    """Pixels of a token."""


def looks_of(image: np.ndarray) -> Tensor:
    """(5, H, W) float32 of an (H, W, 3) uint8 image: its colours, and how fast its brightness changes both ways."""
    colours = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)
    grey = colours.mean(dim=0)
    across = pad((grey[:, 2:] - grey[:, :-2]).abs(), (1, 1))
    down = pad((grey[2:] - grey[:-2]).abs(), (0, 0, 1, 1))
    return torch.cat([colours, 4 * across[None], 4 * down[None]])


def token_contrast(tokens: Tensor, *, map_hw: tuple[int, int], image_hw: tuple[int, int]) -> TokenContrast | None:
    """Of a (C, Hp, Wp) map that covers ``map_hw`` from the image's top left; None if too few tokens are in the image.

    A token counts if at least half of it is, so that padding takes no part.
    """
    cell = (map_hw[0] / tokens.shape[1], map_hw[1] / tokens.shape[2])
    rows = min(tokens.shape[1], int(image_hw[0] / cell[0] + 0.5))
    columns = min(tokens.shape[2], int(image_hw[1] / cell[1] + 0.5))
    if min(rows, columns) < MIN_GRID:
        return None
    values = _contrast(tokens[:, :rows, :columns].float().cpu())
    gram = values.T @ values if values.shape[1] < values.shape[0] else values @ values.T
    return TokenContrast(values=values, norm=float(gram.norm()), rows=rows, columns=columns, cell_hw=cell)


def agreement(map_: TokenContrast, looks: Tensor, *, shift: Shift = IN_PLACE) -> float:
    """0 (nothing in common) to 1 of a map with the image that ``looks`` are of, if the map lay by ``shift``."""
    over_rows = _boxes(map_.rows, map_.cell_hw[0], looks.shape[1], shift=shift.down, farther=shift.taller)
    over_columns = _boxes(map_.columns, map_.cell_hw[1], looks.shape[2], shift=shift.right, farther=shift.wider)
    of_image = _contrast(over_rows @ looks @ over_columns.T)
    norm = map_.norm * float((of_image.T @ of_image).norm())
    return float((map_.values.T @ of_image).square().sum()) / norm if norm > 0 else 0.0


def _boxes(cells: int, size: float, pixels: int, *, shift: float, farther: float) -> Tensor:
    """(cells, pixels): the mean over the pixels of every cell, of those that there are."""
    middle = cells / 2
    from_middle = (torch.arange(cells + 1, dtype=torch.float64) - middle) * (1 + farther / middle)
    edges = (from_middle + middle + shift) * size
    first = torch.arange(pixels, dtype=torch.float64)
    inside = torch.minimum(edges[1:, None], first + 1) - torch.maximum(edges[:-1, None], first)
    weights = inside.clamp(min=0)
    return (weights / weights.sum(dim=1, keepdim=True).clamp(min=_LEAST)).float()


def _contrast(grid: Tensor) -> Tensor:
    """(T, C) of a (C, rows, columns) grid: every cell less the mean of those around it, every channel of variance 1."""
    around = avg_pool2d(pad(grid[None], (_WINDOW // 2,) * 4, mode="replicate"), _WINDOW, stride=1)[0]
    values = (grid - around).flatten(1).T
    values = values - values.mean(dim=0)
    return values / values.std(dim=0, correction=0).clamp(min=_LEAST)
