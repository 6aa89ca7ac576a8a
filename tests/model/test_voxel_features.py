"""The fast path against build_pyramid and dense matrix products: values, masks, rows and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ditr.data.batch import Batch, Sample
from ditr.geometry.sampling import Mode, read_at, sample_map
from ditr.model import voxel_features
from ditr.model.point_features import PointFeatures, stack
from ditr.model.sparse import require_same_voxels, voxelise
from ditr.model.voxel_features import VoxelFeatures
from tests.reference.pyramid import build_pyramid

Pooling = Literal["max", "mean"]
STRIDES = (16, 8, 4, 2, 1)


def read(batch: Batch, *, mode: Mode) -> PointFeatures:
    maps = [sample.tokens for sample in batch if sample.tokens is not None]
    readings = [
        read_at(sample.uv, grid_hw=(tokens.shape[1], tokens.shape[2]), map_hw=sample.map_hw, mode=mode)
        for sample, tokens in zip(batch, maps, strict=True)
    ]
    return stack(maps, readings, valid=torch.cat([sample.uv_valid for sample in batch]))


@pytest.fixture
def mixed_batch(make_sample: Callable[..., Sample]) -> Batch:
    """Maps of two sizes, one of them padded; negative features; a third of a frame and then a whole one not valid."""
    first, second, third = make_sample(1), make_sample(2, points=450), make_sample(3, points=300)
    tokens = torch.randn(12, 7, 9, generator=torch.Generator().manual_seed(0)).half() - 3
    first = replace(first, uv_valid=first.uv_valid & (first.xyz[:, 0] > -0.4))
    second = replace(second, tokens=tokens, map_hw=(490, 644))
    third = replace(third, uv_valid=torch.zeros(300, dtype=torch.bool))
    return Batch(samples=(first, second, third))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_points_read_what_sample_map_reads(mixed_batch: Batch, mode: Mode) -> None:
    points = read(mixed_batch, mode=mode)
    direct = torch.cat(
        [sample_map(s.tokens, s.uv, map_hw=s.map_hw, mode=mode) for s in mixed_batch if s.tokens is not None]
    )
    assert torch.equal(points.dense(), direct)
    torch.testing.assert_close(points.matrix() @ points.tokens, direct)
    torch.testing.assert_close(points.weights.sum(dim=1), torch.ones(len(direct)))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("voxel_size_m", [0.05, 0.002, 40.0])
def test_levels_and_gradients_are_those_of_the_direct_path(
    mixed_batch: Batch, mode: Mode, pooling: Pooling, voxel_size_m: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A voxel a point, ordinary ones, and one voxel a frame."""
    monkeypatch.setattr(voxel_features, "MAX_CHANNELS", 5)  # so that a maximum takes several turns, the last one short
    points, voxels = read(mixed_batch, mode=mode), voxelise(mixed_batch, voxel_size_m=voxel_size_m, engine="minkowski")
    features = VoxelFeatures(points, voxels)
    torch.manual_seed(0)
    layer, direct_layer = nn.Linear(12, 4, bias=False), nn.Linear(12, 4, bias=False)
    direct_layer.load_state_dict(layer.state_dict())
    for stride, level in build_pyramid(points, voxels, strides=STRIDES, pooling=pooling).items():
        coverage = features.coverage(stride)
        require_same_voxels(level.tensor.voxels, coverage.voxels, what=f"stride {stride}")
        assert torch.equal(coverage.mask, level.mask)
        assert not coverage.mask.all(), "the third frame has no feature"
        torch.testing.assert_close(
            features.pooled(stride, pooling=pooling), level.tensor.features, atol=2e-5, rtol=1e-5
        )

        wanted = torch.randn(len(level.mask), 4)
        fast, slow = features.projected(stride, layer, pooling=pooling), direct_layer(level.tensor.features)
        torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-4)
        for out, its in ((fast, layer), (slow, direct_layer)):
            its.zero_grad()
            (out * wanted).sum().backward()
        torch.testing.assert_close(layer.weight.grad, direct_layer.weight.grad, atol=1e-3, rtol=1e-4)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.sampled_from([0.03, 0.1, 0.4]), share=st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_random_frames(seed: int, size: float, share: float, make_sample: Callable[..., Sample]) -> None:
    sample = make_sample(seed, points=120, superpoints=3, channels=6)
    valid = torch.rand(120, generator=torch.Generator().manual_seed(seed + 1)) < share
    batch = Batch(samples=(replace(sample, uv_valid=valid),))
    points, voxels = read(batch, mode="bilinear"), voxelise(batch, voxel_size_m=size, engine="minkowski")
    for pooling in ("max", "mean"):
        features = VoxelFeatures(points, voxels)  # type: ignore[arg-type]
        for stride, level in build_pyramid(points, voxels, strides=STRIDES, pooling=pooling).items():  # type: ignore[arg-type]
            assert torch.equal(features.coverage(stride).mask, level.mask)
            torch.testing.assert_close(
                features.pooled(stride, pooling=pooling), level.tensor.features, atol=2e-5, rtol=1e-5
            )


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_values_of_stride_1_pool_like_features(mixed_batch: Batch, pooling: Pooling) -> None:
    points, voxels = read(mixed_batch, mode="nearest"), voxelise(mixed_batch, voxel_size_m=0.05, engine="minkowski")
    features = VoxelFeatures(points, voxels)
    first = features.pooled(1, pooling=pooling)
    for stride in STRIDES:
        torch.testing.assert_close(
            features.pool_up(first, stride=stride, pooling=pooling), features.pooled(stride, pooling=pooling)
        )


def test_a_maximum_of_equal_values_shares_its_gradient(mixed_batch: Batch) -> None:
    """As a projection that starts at zero makes them: no child is to be favoured for its place in memory."""
    points, voxels = read(mixed_batch, mode="nearest"), voxelise(mixed_batch, voxel_size_m=0.05, engine="minkowski")
    features = VoxelFeatures(points, voxels)
    fine, coarse = features.coverage(1), features.coverage(2)
    zeros = torch.zeros(len(fine.mask), 2, requires_grad=True)
    features.pool_up(zeros, stride=2, pooling="max").sum().backward()
    parents = fine.voxels.parents
    children = torch.zeros(len(coarse.mask)).index_add(0, parents, fine.mask.float())
    share = torch.where(fine.mask, 1 / children[parents], 0)
    torch.testing.assert_close(zeros.grad, share[:, None].expand(-1, 2))
