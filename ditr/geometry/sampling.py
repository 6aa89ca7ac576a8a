"""Token maps -> points: what each point reads at its pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

Mode = Literal["nearest", "bilinear"]

Size = int | Tensor
"""One for all N points, or (N,) int64, where they are of several maps."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Which tokens N points read, and how much of each."""

    rows: Tensor
    """(N, K) int64 into the T = Hp x Wp tokens of a map, row by row; K is 1 (nearest, or a token each) or 4
    (bilinear)."""
    weights: Tensor
    """(N, K) float32; those of a point sum to 1."""


def sample_map(tokens: Tensor, uv: Tensor, *, map_hw: tuple[int, int], mode: Mode) -> Tensor:
    """(N, C) float32 features of N points from one (C, Hp, Wp) map of any float dtype; see ``read_at``."""
    reading = read_at(uv.to(tokens.device), grid_hw=(tokens.shape[1], tokens.shape[2]), map_hw=map_hw, mode=mode)
    return mixed(tokens.flatten(1).T.float().contiguous(), reading)


def mixed(tokens: Tensor, reading: Reading) -> Tensor:
    """(T, C) float32 -> (N, C): each point's tokens, weighted."""
    return embedding_bag(reading.rows, tokens, per_sample_weights=reading.weights, mode="sum")


def one_each(points: int, *, device: torch.device) -> Reading:
    """Where there is a token for each point, in their order."""
    return Reading(rows=torch.arange(points, device=device)[:, None], weights=torch.ones(points, 1, device=device))


def read_at(uv: Tensor, *, grid_hw: tuple[Size, Size], map_hw: tuple[Size, Size], mode: Mode) -> Reading:
    """What N points read of a map of Hp x Wp tokens, or of one map each.

    The map covers ``map_hw``, so pixel ``u`` lies at token coordinate ``(u + 0.5) * Wp / W - 0.5`` and ``v``
    alike: centres of pixels and tokens are integers on both sides. Outside the outermost token centres the border
    token holds, whichever the mode (docs/reference/fusion.md, Token grid).

    Parameters
    ----------
    uv: (N, 2) pixels of the image, u to the right, v down; finite.
    grid_hw: Hp and Wp.
    map_hw: height H and width W in pixels of what the map covers from the image's top left corner.
    mode: ``nearest`` reads the token that contains the pixel, ``bilinear`` mixes the four around it.
    """
    height, width = map_hw
    # Share of what is covered to the left of and above each pixel's centre, 0..1.
    u, v = uv.float().unbind(dim=1)
    across, down = (u + 0.5) / width, (v + 0.5) / height
    return _containing(across, down, grid_hw) if mode == "nearest" else _around(across, down, grid_hw)


def _containing(across: Tensor, down: Tensor, grid_hw: tuple[Size, Size]) -> Reading:
    rows, columns = grid_hw
    column = _within((across * columns).floor().long(), columns)
    row = _within((down * rows).floor().long(), rows)
    return Reading(rows=(row * columns + column)[:, None], weights=across.new_ones(len(across), 1))


def _around(across: Tensor, down: Tensor, grid_hw: tuple[Size, Size]) -> Reading:
    rows, columns = grid_hw
    left, right, to_right = _neighbours(across, columns)
    top, bottom, down = _neighbours(down, rows)
    return Reading(
        rows=torch.stack(
            [top * columns + left, top * columns + right, bottom * columns + left, bottom * columns + right], dim=1
        ),
        weights=torch.stack(
            [(1 - down) * (1 - to_right), (1 - down) * to_right, down * (1 - to_right), down * to_right], dim=1
        ),
    )


def _neighbours(share: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) the tokens before and after along one axis, and the way from the one's centre to the other's, 0..1."""
    at = _within(share * size - 0.5, size)
    before = at.floor().long()
    return before, _within(before + 1, size), at - before


def _within(at: Tensor, size: Size) -> Tensor:
    """Between the centres of the first and the last token."""
    return at.clamp(min=0).clamp(max=size - 1)
