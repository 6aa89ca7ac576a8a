"""Under autocast: products in half precision; norms, softmax, costs, sums and losses in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ditr.data.batch import Batch
from ditr.model.esam import EsamSingleView
from ditr.model.output import ModelOutput, to_floats
from ditr.spec.fusion import FusionSpec
from ditr.spec.models import BackboneSpec, DecoderSpec, LossSpec, ModelSpec
from ditr.training.criterion import Criterion
from tests.reference.labelled_frames import labelled_frame

BATCH = Batch(
    samples=tuple(labelled_frame(seed, points=300, superpoints=20 + seed, things=3 + seed) for seed in range(3))
)
HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture
def model() -> EsamSingleView:
    torch.manual_seed(0)
    spec = ModelSpec(
        backbone=BackboneSpec(planes=(16,) * 8, layers=(1,) * 8, stem_channels=4),
        decoder=DecoderSpec(width=32, heads=4, feedforward=48),
    )
    return EsamSingleView(spec, fusion=FusionSpec(), feature_channels=None, sampling="nearest", query_fraction=0.5)


def run(model: EsamSingleView, dtype: torch.dtype) -> tuple[ModelOutput, dict[str, float], Tensor]:
    """What the heads say of features of that precision, the loss's terms, and all gradients."""
    features = torch.randn(900, model.backbone.out_channels, generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        output = model._decode(features.to(dtype), BATCH)
    losses = Criterion(LossSpec())(output, BATCH)
    assert losses.total.dtype == torch.float32
    losses.total.backward()  # type: ignore[no-untyped-call]
    gradients = [
        p.grad.flatten() for p in (*model.pool.parameters(), *model.decoder.parameters()) if p.grad is not None
    ]
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    return output, to_floats(losses.terms), torch.cat(gradients)


@pytest.mark.parametrize("half", HALVES)
def test_losses_and_gradients_stay_near_those_of_float32(model: EsamSingleView, half: torch.dtype) -> None:
    _, exact, exact_gradient = run(model, torch.float32)
    _, rounded, gradient = run(model, half)
    assert rounded == pytest.approx(exact, rel=0.03)
    assert float((gradient - exact_gradient).norm() / exact_gradient.norm()) < 0.1


@pytest.mark.parametrize("half", HALVES)
def test_what_is_rounded_and_what_is_not(model: EsamSingleView, half: torch.dtype) -> None:
    made: dict[str, set[torch.dtype]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.LayerNorm) and not isinstance(
            layer, nn.modules.linear.NonDynamicallyQuantizableLinear
        ):
            layer.register_forward_hook(lambda _, __, out, name=name: made.setdefault(name, set()).add(out.dtype))
    output, *_ = run(model, half)
    ranked = ("decoder.out_cls.", "decoder.out_sem")
    for name, dtypes in made.items():
        norm = isinstance(model.get_submodule(name), nn.LayerNorm)
        assert dtypes == {torch.float32 if norm or name.startswith(ranked) else half}, name
    for head in output.heads:
        assert (head.masks.rows.dtype, head.masks.features.dtype) == (half, half)
        assert (head.masks.logits().dtype, head.class_logits.dtype) == (torch.float32, torch.float32)
    assert output.semantic_logits.dtype == torch.float32
