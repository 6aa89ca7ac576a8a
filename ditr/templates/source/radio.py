"""A 2D source of one's own: what turns images into maps of tokens. Replace the network by yours."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


class Radio(nn.Module):
    """Convolutions with random weights: no use as features, but a whole source to start from.

    The registry's entry says the rest: what images are resized to and normalised by, and that a map has 64 channels and
    a token for each 16 x 16 pixels. ditr seeds torch, calls the class without an argument, or with the weight file that
    the entry names, and freezes what it gets.
    """

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        # Without overlap from stride to stride, so that a token's centre is that of its 16 x 16 pixels: a kernel of 7
        # with a stride of 4 would lay the map half a token beside, which `ditr check` finds.
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, kernel_size=4, stride=4),
            nn.GELU(),
            nn.Conv2d(32, 32, kernel_size=3, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=4),
        )
        if weights is not None:
            self.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (B, 64, h / 16, w / 16) of pixels (B, 3, h, w), token rows from the top."""
        maps: Tensor = self.layers(pixels)
        return maps
