from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ditr.data.batch import Batch
from ditr.errors import Code, DitrError
from ditr.model.injection import Injection, Projection
from ditr.model.pyramid import PointFeatures, build_pyramid
from ditr.model.sparse import SparseTensor, Voxels, voxelise, with_features
from ditr.spec.models import BackboneSpec, InjectionSpec


@pytest.fixture
def voxels(batch: Batch) -> Voxels:
    return voxelise(batch, voxel_size_m=0.05)


@pytest.fixture
def points(batch: Batch) -> PointFeatures:
    total = sum(len(sample.xyz) for sample in batch)
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(total, generator=generator) > 0.4
    return PointFeatures(values=torch.randn(total, 3, generator=generator), valid=valid)


def inject_once(
    injection: Injection, points: PointFeatures, voxels: Voxels, *, strides: tuple[int, ...] = (1,)
) -> tuple[SparseTensor, SparseTensor, SparseTensor, SparseTensor, dict[str, Any]]:
    """Up and skip branches at stride 1 before and after, and the statistics."""
    levels = build_pyramid(points, voxels, strides=strides, pooling="max")
    statistics: dict[str, Any] = {}
    up = with_features(voxels.tensor, torch.randn(len(voxels.tensor.F), 6))
    skip = with_features(voxels.tensor, torch.randn(len(voxels.tensor.F), 5))
    out_up, out_skip = injection.hook(levels, statistics=statistics)(1, up, skip)
    return up, skip, out_up, out_skip, statistics


@pytest.mark.parametrize(("target", "count"), [("up", 1024 * (256 + 128 + 96 + 96)), ("skip", 1024 * 256)])
def test_size_of_the_reference_s_plan(target: Any, count: int) -> None:
    injection = Injection(InjectionSpec(target=target), backbone=BackboneSpec(), feature_channels=1024)
    assert sum(p.numel() for p in injection.parameters()) == count


@pytest.mark.parametrize("target", ["up", "skip"])
@pytest.mark.parametrize("projection", ["linear", "linear_bn_gelu"])
def test_only_the_target_changes_and_only_where_there_is_a_feature(
    target: Any, projection: Any, small_backbone: BackboneSpec, points: PointFeatures, voxels: Voxels
) -> None:
    torch.manual_seed(0)
    spec = InjectionSpec(scales=(1,), target=target, projection=projection, init="random")
    injection = Injection(spec, backbone=small_backbone, feature_channels=3)
    for module in injection.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.ones_(module.bias)  # after which even a zero feature would not stay zero
    up, skip, out_up, out_skip, statistics = inject_once(injection, points, voxels)
    (base, out), (other, untouched) = ((up, out_up), (skip, out_skip))[:: 1 if target == "up" else -1]
    assert untouched is other

    has_feature = torch.zeros(len(base.F), dtype=torch.bool)
    has_feature[voxels.voxel_of_point[points.valid]] = True
    assert 0 < has_feature.sum() < len(has_feature)
    assert torch.equal(out.F[~has_feature], base.F[~has_feature])
    assert (out.F[has_feature] != base.F[has_feature]).any(dim=1).all()
    assert statistics["injection_s1_empty_ratio"].item() == pytest.approx(1 - has_feature.float().mean().item())
    strength = (out.F - base.F).norm() / base.F.norm()
    assert statistics["injection_s1_relative_norm"].item() == pytest.approx(strength.item(), rel=1e-4)


def test_a_projection_sees_only_rows_with_a_feature(
    small_backbone: BackboneSpec, points: PointFeatures, voxels: Voxels
) -> None:
    spec = InjectionSpec(scales=(1,), projection="linear_bn_gelu", init="random")
    injection = Injection(spec, backbone=small_backbone, feature_channels=3)
    seen = []
    injection.projections["stride1"].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    inject_once(injection, points, voxels)
    assert len(seen[0]) == len(voxels.voxel_of_point[points.valid].unique())


def test_no_valid_point_adds_nothing_and_is_counted(small_backbone: BackboneSpec, voxels: Voxels) -> None:
    points = PointFeatures(values=torch.randn(1050, 3), valid=torch.zeros(1050, dtype=torch.bool))
    spec = InjectionSpec(scales=(1,), projection="linear_bn_gelu", init="random")
    injection = Injection(spec, backbone=small_backbone, feature_channels=3)
    up, _, out, _, statistics = inject_once(injection, points, voxels)
    assert torch.equal(up.F, out.F)
    assert statistics["injection_s1_empty_ratio"] == 1


def test_one_row_cannot_be_normalised(small_backbone: BackboneSpec, voxels: Voxels) -> None:
    valid = torch.zeros(1050, dtype=torch.bool)
    valid[3] = True
    points = PointFeatures(values=torch.randn(1050, 3), valid=valid)
    spec = InjectionSpec(scales=(1,), projection="linear_bn_gelu")
    injection = Injection(spec, backbone=small_backbone, feature_channels=3)
    with pytest.raises(DitrError, match="only one voxel of stride 1") as caught:
        inject_once(injection, points, voxels)
    assert caught.value.code is Code.FEATURES
    inject_once(injection.eval(), points, voxels)


def test_a_level_of_other_voxels_is_refused(
    small_backbone: BackboneSpec, points: PointFeatures, voxels: Voxels
) -> None:
    injection = Injection(InjectionSpec(scales=(1, 2)), backbone=small_backbone, feature_channels=3)
    levels = build_pyramid(points, voxels, strides=(1, 2), pooling="mean")
    hook = injection.hook({1: levels[2]}, statistics={})
    with pytest.raises(AssertionError, match=r"injection at stride 1: .*different voxels"):
        hook(1, voxels.tensor, voxels.tensor)


@pytest.mark.parametrize("kind", ["linear", "linear_bn_gelu"])
def test_zero_start_grows_slowly(kind: Any) -> None:
    """A zero layer before a norm would jump to the norm's unit variance in one step."""
    torch.manual_seed(0)
    projection = Projection(16, 8, kind=kind, init="zero")
    features = torch.randn(500, 16)
    assert projection(features).abs().max() == 0
    optimiser = torch.optim.AdamW(projection.parameters(), lr=1e-3)
    (projection(features) - torch.randn(500, 8)).square().mean().backward()
    optimiser.step()
    assert 0 < projection(features).std() < 0.02
