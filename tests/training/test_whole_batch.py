"""Pool, decoder, matching and loss of a whole batch against the same one sample, one head at a time.

In float64 the two differ by rounding alone, in every term and in the gradient of every parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from ditr.data.batch import Batch, Sample
from ditr.model.esam import EsamSingleView
from ditr.model.masks import MAX_NUMBERS, Level
from ditr.spec.fusion import FusionSpec
from ditr.spec.models import BackboneSpec, DecoderSpec, LossSpec, ModelSpec
from ditr.training.criterion import Criterion, Losses
from tests.reference.labelled_frames import labelled_frame
from tests.reference.loop_loss import LoopCriterion
from tests.reference.loop_model import loop_outputs

LEVELS: tuple[Level, ...] = ("superpoint", "superpoint", "point", "point")
CASES: dict[str, list[Sample]] = {
    "one": [labelled_frame(0)],
    "two that differ": [labelled_frame(0, points=90), labelled_frame(1, points=70, superpoints=23, things=5)],
    "four": [labelled_frame(seed, points=60 + seed, superpoints=8 + 3 * seed, things=1 + seed) for seed in range(4)],
    "sixteen": [labelled_frame(seed, points=60, superpoints=8 + seed, things=seed % 5) for seed in range(16)],
    "one without things": [labelled_frame(0, things=0), labelled_frame(1, points=55)],
    "no things at all": [labelled_frame(0, things=0), labelled_frame(1, points=55, things=0)],
    "one superpoint": [labelled_frame(0, superpoints=1, things=1), labelled_frame(1)],
    "one superpoint alone": [labelled_frame(0, superpoints=1, things=1)],
    "things that no query can answer for": [labelled_frame(0, superpoints=2, things=6), labelled_frame(1)],
}


def make_model(*, levels: Sequence[Level] = LEVELS, dtype: torch.dtype = torch.float64) -> EsamSingleView:
    torch.manual_seed(0)
    spec = ModelSpec(
        backbone=BackboneSpec(planes=(4,) * 8, layers=(1,) * 8, stem_channels=4),
        decoder=DecoderSpec(width=16, heads=4, feedforward=24, mask_levels=tuple(levels)),
    )
    model = EsamSingleView(spec, fusion=FusionSpec(), feature_channels=None, sampling="nearest", query_fraction=0.5).to(
        dtype
    )
    with torch.no_grad():  # no norm is an identity, no bias zero
        for parameter in (*model.pool.parameters(), *model.decoder.parameters()):
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def both(
    model: EsamSingleView, samples: Sequence[Sample], *, spec: LossSpec, esam_compat: bool = False
) -> tuple[tuple[Losses, dict[str, Tensor]], tuple[Losses, dict[str, Tensor]]]:
    """Losses and gradients of the whole batch and of the loop."""
    rng, dtype = torch.Generator().manual_seed(1), next(model.parameters()).dtype
    batch = Batch(samples=tuple(replace(sample, xyz=sample.xyz.to(dtype)) for sample in samples))
    count = sum(len(sample.xyz) for sample in samples)
    features = torch.randn(count, model.backbone.out_channels, generator=rng).to(dtype).requires_grad_()

    def differentiated(losses: Losses) -> tuple[Losses, dict[str, Tensor]]:
        model.zero_grad()
        features.grad = None
        losses.total.backward()  # type: ignore[no-untyped-call]
        named = [(n, p) for n, p in model.named_parameters() if n.startswith(("pool.", "decoder."))]
        return losses, {
            name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            for name, tensor in [("features", features), *named]
        }

    output = model._decode(features, batch)
    ours = differentiated(Criterion(spec, esam_compat=esam_compat)(output, batch))
    return ours, differentiated(
        LoopCriterion(spec, esam_compat=esam_compat)(loop_outputs(model, features, batch), batch)
    )


def assert_equal(
    ours: tuple[Losses, dict[str, Tensor]], theirs: tuple[Losses, dict[str, Tensor]], *, rounding: float
) -> None:
    assert ours[0].terms.keys() == theirs[0].terms.keys()
    assert ours[0].unmatched_samples == theirs[0].unmatched_samples
    assert ours[0].unlabelled_samples == theirs[0].unlabelled_samples
    for name, wanted in {"total": theirs[0].total, **theirs[0].terms}.items():
        found = ours[0].total if name == "total" else ours[0].terms[name]
        torch.testing.assert_close(found, wanted, rtol=rounding, atol=0, msg=lambda text, name=name: f"{name}: {text}")
    largest = max(float(gradient.norm()) for gradient in theirs[1].values())
    for name, wanted in theirs[1].items():
        deviation = float((ours[1][name] - wanted).norm())
        assert deviation <= rounding * max(float(wanted.norm()), 0.01 * largest), f"{name}: {deviation:.1e}"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_the_loop(case: str, training: bool) -> None:
    assert_equal(*both(make_model().train(training), CASES[case], spec=LossSpec()), rounding=1e-12)


@pytest.mark.parametrize("case", ["one", "four", "sixteen"])
def test_in_float32_they_are_to_its_rounding(case: str) -> None:
    assert_equal(*both(make_model(dtype=torch.float32), CASES[case], spec=LossSpec()), rounding=2e-6)


@pytest.mark.parametrize("levels", [*product(("superpoint", "point"), repeat=3)])
def test_either_level_at_every_position(levels: tuple[Level, ...]) -> None:
    assert_equal(*both(make_model(levels=levels), CASES["four"], spec=LossSpec()), rounding=1e-12)


def test_every_weight_and_the_quirks_of_esam() -> None:
    spec = LossSpec(classification=0.3, no_object=0.0, mask_bce=2.0, mask_dice=0.7, dice_final=3.0, semantic=1.5)
    for esam_compat in (True, False):
        assert_equal(*both(make_model(), CASES["four"], spec=spec, esam_compat=esam_compat), rounding=1e-12)


def test_masks_in_many_small_runs_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAX_NUMBERS, "cpu", 700)
    assert_equal(*both(make_model(), CASES["four"], spec=LossSpec()), rounding=1e-12)
