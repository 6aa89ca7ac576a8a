"""Models to try things on, made from the spec as a run makes its own: the one that is checked never changes."""

from __future__ import annotations

import torch

from ditr.checks.subject import Subject
from ditr.model.esam import EsamSingleView
from ditr.seeds import derive_seed
from ditr.spec.fusion import FusionSpec

_SHAKEN_STD = 0.3
"""Of what is put onto biases and norms, whose usual values are 0 and 1."""


def fresh_model(subject: Subject, *, fusion: FusionSpec) -> EsamSingleView:
    """As a run with this fusion makes it, before any checkpoint; torch's generators stay as they are."""
    spec = subject.spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(subject.seed, "init"))
        return EsamSingleView(
            spec.model,
            fusion=fusion,
            feature_channels=subject.model.feature_channels if fusion.parts else None,
            sampling=subject.model.sampling,
            query_fraction=subject.model.query_fraction,
            engine=subject.model.engine,
        ).to(subject.device)


def model_copy(subject: Subject) -> EsamSingleView:
    """The subject's model with its weights, in evaluation mode."""
    model = fresh_model(subject, fusion=subject.spec.fusion)
    model.load_state_dict(subject.model.state_dict(), strict=False)
    return model.eval()


def acting_copy(subject: Subject) -> EsamSingleView:
    """A copy whose added parts are as a training might leave them: none of their weights is zero, all of them act."""
    model = model_copy(subject)
    for name, weight in model.added_parameters.items():
        generator = torch.Generator().manual_seed(derive_seed(subject.seed, "check", name))
        std = _SHAKEN_STD if weight.dim() == 1 else weight[0].numel() ** -0.5
        noise = std * torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            weight.add_(noise.to(weight.device))
    return model
