"""Nothing in a step asks the device for a number: not for a count, not for a truth value, not for a list.

Fake tensors have shapes and no values, and whatever needs a value raises, as it would wait on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from ditr.data.batch import Batch
from ditr.evaluation.postprocess import _found
from ditr.model.esam import EsamSingleView
from ditr.spec.models import (
    BackboneSpec,
    BiFusionSpec,
    DecoderSpec,
    EvaluationSpec,
    FusionSpec,
    LossSpec,
    ModelSpec,
)
from ditr.training.criterion import Criterion
from tests.reference.labelled_frames import labelled_frame


@pytest.fixture
def batch() -> Batch:
    samples = [labelled_frame(seed, points=50 + seed, superpoints=8 + seed, things=seed) for seed in range(4)]
    maps = [torch.randn(6, 3, 4 + seed).half() for seed in range(4)]
    return Batch(samples=tuple(replace(s, tokens=tokens) for s, tokens in zip(samples, maps, strict=True)))


@pytest.fixture
def model() -> EsamSingleView:
    spec = ModelSpec(
        backbone=BackboneSpec(planes=(4,) * 8, layers=(1,) * 8, stem_channels=4),
        decoder=DecoderSpec(width=16, heads=4, feedforward=24, mask_levels=("point", "superpoint", "point")),
    )
    fusion = FusionSpec(bifusion=BiFusionSpec(width=16))
    return EsamSingleView(spec, fusion=fusion, feature_channels=6, sampling="bilinear", query_fraction=0.5)


ASKS: dict[str, Callable[[Tensor], object]] = {
    "truth": bool,
    "value": float,
    "places": torch.nonzero,
    "selection": lambda value: value[value > 0],
    "lengths": lambda value: torch.ones(1).repeat_interleave(value),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_the_device_would_notice(ask: Callable[[Tensor], object]) -> None:
    with FakeTensorMode(), pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        ask(torch.ones(1, dtype=torch.int64))


def test_a_step_of_the_heads(model: EsamSingleView, batch: Batch) -> None:
    """From the features of points to the gradients of all parameters, and the instances of an evaluation."""
    known = model._layout(batch)  # drawn by the host
    count = sum(len(sample.xyz) for sample in batch)
    features = torch.randn(count, model.backbone.out_channels).requires_grad_()
    with patch.object(model, "_layout", lambda _: known), FakeTensorMode(allow_non_fake_inputs=True):
        points = model.read_2d(batch, statistics={})
        fused, balance = model._fuse(features, points, batch, statistics={})
        output = model._decode(fused, batch, balance_loss=balance, statistics={})
        losses = Criterion(LossSpec())(output, batch)
        losses.total.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("backbone."))
        masks, scores = _found(output, batch, spec=EvaluationSpec())
    assert (masks.shape[0], scores.shape[0]) == (4, 4)
