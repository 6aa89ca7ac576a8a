"""Dropout that is drawn for each sample by itself: the same in an epoch whatever else is in its batch, on any rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ditr.model.fusion import BatchFeatures


class SampleDropout(nn.Module):
    """Of the N points of all samples; nothing in evaluation."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor, features: BatchFeatures | None) -> Tensor:
        """(N, C) -> (N, C): a number becomes 0, or is divided by the probability that it does not."""
        if not self.training or self.probability == 0:
            return x
        assert features is not None, "who trains says what is drawn from"
        left = 1 - self.probability
        drawn = torch.empty_like(x)
        for rows, generator in zip(torch.split(drawn, list(features.in_space.sizes)), features.draws, strict=True):
            rows.bernoulli_(left, generator=generator)
        return x * drawn.div_(left) if left else x * 0


class SampleSequential(nn.Sequential):
    """Layers, among them such dropouts."""

    def forward(self, x: Tensor, features: BatchFeatures | None = None) -> Tensor:
        """``features`` may be None where nothing is drawn."""
        for module in self:
            x = module(x, features) if isinstance(module, SampleDropout) else module(x)
        return x
