"""A fusion part that is not built in and acts wherever a part can, sound; tests spoil one thing of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ditr.fusion import Additions, BatchFeatures, FusionModule, FusionPart, Place, Segments, Sizes

UP: Place = ("up", 4)
SKIP: Place = ("skip", 1)
INSIDE: Place = ("bottleneck", 16)


class Everywhere(FusionPart):
    """Adds to voxels of two places, scales at a third, shifts points and superpoints."""

    width: int = 5
    """Hidden channels at the points."""

    def build(self, sizes: Sizes) -> EverywhereModule:
        return EverywhereModule(self, sizes)


class EverywhereModule(FusionModule):
    """Every last layer starts at zero."""

    def __init__(self, part: Everywhere, sizes: Sizes) -> None:
        super().__init__()
        self.up, self.skip, self.scale = (
            nn.Linear(sizes.features, sizes.voxels[place], bias=False) for place in (UP, SKIP, INSIDE)
        )
        self.hidden = nn.Linear(sizes.features, part.width)
        self.of_points = nn.Linear(part.width, sizes.points)
        self.of_superpoints = nn.Linear(sizes.features, sizes.points)
        for layer in (self.up, self.skip, self.scale, self.of_points, self.of_superpoints):
            for weight in layer.parameters():
                nn.init.zeros_(weight)

    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        voxels = features.voxels
        return {
            UP: voxels.projected(4, self.up, pooling="max"),
            SKIP: voxels.projected(1, self.skip, pooling="mean"),
        }

    def fuse_voxels(self, x: Tensor, place: Place, features: BatchFeatures) -> Tensor:
        return x * (1 + features.voxels.projected(16, self.scale, pooling="mean")) if place == INSIDE else x

    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        points = features.points
        shift = self.of_points(torch.relu(points.matrix() @ self.hidden(points.tokens)))
        features.statistics["everywhere_shift"] = shift.detach().norm()
        features.losses["everywhere_loss"] = 1e-3 * shift.square().mean()
        return torch.where(points.valid[:, None], x + shift, x)

    def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
        points = features.points
        valid = points.valid.float()
        count = superpoints.sum(valid[:, None])
        mean = points.matrix(superpoints, shares=valid / superpoints.spread(count.clamp(min=1))[:, 0]) @ points.tokens
        return torch.where(count > 0, x + self.of_superpoints(mean), x)
