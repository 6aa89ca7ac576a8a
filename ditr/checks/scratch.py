"""Copies of a model to try things on: the model that is checked never changes."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ditr.model.esam import EsamSingleView
from ditr.model.weight_names import ADDED_PARTS
from ditr.seeds import derive_seed

_SHAKEN_STD = 0.3
"""Of what is put onto biases and norms, whose usual values are 0 and 1."""


def added_parameters(model: EsamSingleView) -> dict[str, nn.Parameter]:
    """By name, those of the parts that the fusion adds to the 3D-only model."""
    return {name: weight for name, weight in model.named_parameters() if name.partition(".")[0] in ADDED_PARTS}


def shaken_copy(model: EsamSingleView, *, seed: int) -> EsamSingleView:
    """The added parts as a training might leave them: none of their weights is zero, so that all of them act."""
    shaken = copy.deepcopy(model)
    for name, weight in added_parameters(shaken).items():
        generator = torch.Generator().manual_seed(derive_seed(seed, "check", name))
        std = _SHAKEN_STD if weight.dim() == 1 else weight[0].numel() ** -0.5
        noise = std * torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            weight.add_(noise.to(weight.device))
    return shaken
