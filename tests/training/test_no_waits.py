"""Nothing in a step asks the device for a number: not for a count, not for a truth value, not for a list.

Fake tensors have shapes and no values, and whatever needs a value raises, as it would wait on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from ditr.data.batch import Batch
from ditr.evaluation.postprocess import _found
from ditr.model.esam import EsamSingleView
from ditr.model.fusion import BatchFeatures
from ditr.model.injector import Adder, RowSquares
from ditr.model.sparse import SparseTensor, Voxels, VoxelSet
from ditr.spec.fusion import BiFusionSpec, FusionSpec, InjectionSpec, StemSpec
from ditr.spec.fusion_part import BOTTLENECK_STRIDE
from ditr.spec.models import BackboneSpec, DecoderSpec, EvaluationSpec, LossSpec, ModelSpec
from ditr.training.criterion import Criterion
from tests.reference.labelled_frames import labelled_frame


@pytest.fixture
def batch() -> Batch:
    samples = [labelled_frame(seed, points=50 + seed, superpoints=8 + seed, things=seed) for seed in range(4)]
    maps = [torch.randn(6, 3, 4 + seed).half() for seed in range(4)]
    return Batch(samples=tuple(replace(s, tokens=tokens) for s, tokens in zip(samples, maps, strict=True)))


def make_model(fusion: FusionSpec) -> EsamSingleView:
    spec = ModelSpec(
        backbone=BackboneSpec(planes=(4,) * 8, layers=(1,) * 8, stem_channels=4),
        decoder=DecoderSpec(width=16, heads=4, feedforward=24, mask_levels=("point", "superpoint", "point")),
    )
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


def test_a_step_of_the_heads(batch: Batch) -> None:
    """From the features of points to the gradients of all parameters, and the instances of an evaluation."""
    model = make_model(FusionSpec(bifusion=BiFusionSpec(width=16)))
    known, in_space = model._layout(batch), model.voxelise(batch)  # drawn and made by the host
    count = sum(len(sample.xyz) for sample in batch)
    features = torch.randn(count, model.backbone.out_channels).requires_grad_()
    with patch.object(model, "_layout", lambda _: known), FakeTensorMode(allow_non_fake_inputs=True):
        points = model.read_2d(batch, statistics={})
        assert points is not None
        seeds = tuple(sample.seed for sample in batch)
        read = BatchFeatures(points=points, in_space=in_space, seeds=seeds)
        output = model._decode(model._fuse_points(features, read), batch, features=read)
        losses = Criterion(LossSpec())(output, batch)
        losses.total.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("backbone."))
        masks, scores = _found(output, batch, spec=EvaluationSpec())
    assert (masks.shape[0], scores.shape[0]) == (4, 4)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("projection", ["linear", "linear_bn_gelu"])
@pytest.mark.parametrize("order", ["pool_then_project", "project_then_pool"])
def test_a_step_of_the_injection(batch: Batch, pooling: Any, projection: Any, order: Any) -> None:
    """From the maps to what is added to the backbone, and back to the projections; in training and in evaluation."""
    injection = InjectionSpec(scales=(16, 8, 4, 2, 1), pooling=pooling, projection=projection, order=order)
    model = make_model(FusionSpec(injection=injection, stem=StemSpec(projection=projection)))
    for training in (True, False):
        voxels = model.voxelise(batch)
        of_stride = strides_of(voxels)  # as the engine makes them
        with FakeTensorMode(allow_non_fake_inputs=True):
            statistics: dict[str, Tensor] = {}
            points = model.train(training).read_2d(batch, statistics=statistics)
            assert points is not None
            injector = model.injector(BatchFeatures(points=points, in_space=voxels, statistics=statistics))
            assert injector is not None
            additions, met = injector.additions(), RowSquares()
            adder = Adder(additions, voxels=voxels.tensor.voxels, met=met)
            outputs = []
            for branch, stride in additions:
                on = of_stride[stride]
                features = torch.randn(len(on), model.backbone.out_channels)
                outputs.append(adder(branch, stride, SparseTensor(features=features, voxels=on)).features)
            sum(out.sum() for out in outputs).backward()  # type: ignore[union-attr]
            if training:
                statistics |= injector.statistics(additions, met=met)
        added = [p for n, p in model.named_parameters() if n.startswith(("injection.", "stem."))]
        assert all(p.grad is not None for p in added)
        assert all(value.shape == (() if training else (len(batch),)) for value in statistics.values())
        of_place = 3 if projection == "linear_bn_gelu" else 2
        assert len(statistics) == 1 + (len(additions) * of_place if training else 0)
        model.zero_grad()


def strides_of(voxels: Voxels) -> dict[int, VoxelSet]:
    one = voxels.tensor.voxels
    found = {one.stride: one}
    while one.stride < BOTTLENECK_STRIDE:
        assert one.parents.dtype == torch.int64
        one = one.coarser
        found[one.stride] = one
    return found
