"""A fusion of one's own: what a point's pixel shows scales and shifts what the 3D backbone says of the point."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ditr.fusion import BatchFeatures, FusionModule, FusionPart, Sizes


class Film(FusionPart):
    """Feature-wise linear modulation of points (FiLM, arXiv 1709.07871)."""

    width: Annotated[int, Field(ge=1, le=4096)] = 64
    """Channels between the 2D feature and the scale and shift that are made of it."""

    def build(self, sizes: Sizes) -> FilmModule:
        return FilmModule(self, sizes)


class FilmModule(FusionModule):
    """Starts as nothing: the last layer is zero, so every scale is 1 and every shift 0."""

    def __init__(self, part: Film, sizes: Sizes) -> None:
        super().__init__()
        self.first = nn.Linear(sizes.features, part.width)
        self.last = nn.Linear(part.width, 2 * sizes.points)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        """(N, C) of all points of the batch -> the same shape; points without a 2D feature stay as they are."""
        points = features.points
        # A layer of the tokens, which are fewer than points; the matrix brings what it gives to the points.
        read = torch.relu(points.matrix() @ self.first(points.tokens))  # (N, width)
        scale, shift = self.last(read).chunk(2, dim=1)
        return torch.where(points.valid[:, None], x * (1 + scale) + shift, x)
