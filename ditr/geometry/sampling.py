"""Token maps -> points: what each point reads at its pixel."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def sample_map(tokens: Tensor, uv: Tensor, *, map_hw: tuple[int, int], mode: Literal["nearest", "bilinear"]) -> Tensor:
    """(N, C) float32 features of N points from one map of T = Hp x Wp tokens.

    The map covers ``map_hw``, so pixel ``u`` lies at token coordinate ``(u + 0.5) * Wp / W - 0.5`` and ``v``
    alike: centres of pixels and tokens are integers on both sides. Outside the outermost token centres the border
    token holds, whichever the mode (reference: feature sources, section 3).

    Parameters
    ----------
    tokens: (C, Hp, Wp) of any float dtype.
    uv: (N, 2) pixels of the image, u to the right, v down; finite.
    map_hw: height H and width W in pixels of what the map covers from the image's top left corner.
    mode: ``nearest`` reads the token that contains the pixel, ``bilinear`` mixes the four around it.
    """
    height, width = map_hw
    # Share of what is covered to the left of and above each pixel's centre, 0..1.
    share = (uv.to(device=tokens.device, dtype=torch.float32) + 0.5) / torch.tensor(
        [width, height], dtype=torch.float32, device=tokens.device
    )
    return _containing(tokens, share) if mode == "nearest" else _mixed(tokens, share)


def _containing(tokens: Tensor, share: Tensor) -> Tensor:
    _, rows, columns = tokens.shape
    column = (share[:, 0] * columns).floor().long().clamp(0, columns - 1)
    row = (share[:, 1] * rows).floor().long().clamp(0, rows - 1)
    rows_of_tokens = tokens.flatten(1).T.contiguous()  # (T, C): a point then reads one stretch of memory
    return rows_of_tokens[row * columns + column].float()


def _mixed(tokens: Tensor, share: Tensor) -> Tensor:
    grid = (2 * share - 1)[None, None]  # (1, 1, N, 2)
    read = grid_sample(tokens.float()[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return read[0, :, 0].T.contiguous()
