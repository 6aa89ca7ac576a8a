from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from ditr.data.batch import Batch
from ditr.errors import Code, DitrError
from ditr.model.fusion import BatchFeatures
from ditr.model.injection import Injection, Projection, StemFusion, require_two_voxels
from ditr.model.injector import Adder, Injector, RowSquares
from ditr.model.output import to_floats
from ditr.model.point_features import PointFeatures
from ditr.model.res16unet import Res16UNet, widths_of
from ditr.model.sparse import SparseTensor, Voxels, voxelise
from ditr.spec.fusion import InjectionSpec, StemSpec
from ditr.spec.fusion_part import Branch, Place, Sizes
from ditr.spec.models import BackboneSpec
from tests.reference.pyramid import build_pyramid


@pytest.fixture
def voxels(batch: Batch) -> Voxels:
    return voxelise(batch, voxel_size_m=0.05, engine="minkowski")


@pytest.fixture
def points(batch: Batch, points_of: Callable[..., PointFeatures]) -> PointFeatures:
    total = sum(len(sample.xyz) for sample in batch)
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(total, generator=generator) > 0.4
    return points_of(torch.randn(total, 3, generator=generator), valid)


def sizes_of(backbone: BackboneSpec, *, features: int = 3) -> Sizes:
    return Sizes(features=features, voxels=widths_of(backbone), points=backbone.planes[7])


def inject_once(
    part: Injection | StemFusion, points: PointFeatures, voxels: Voxels, *, stride: int
) -> tuple[SparseTensor, SparseTensor, dict[str, Any]]:
    """Noise on the voxels of one stride, what the part makes of it, and the statistics."""
    features = BatchFeatures(points=points, in_space=voxels)
    projections = [module for module in part.modules() if isinstance(module, Projection)]
    place: Place = ("stem", 1) if isinstance(part, StemFusion) else part.places[0]
    widths = {place: projections[0].linear.out_features}
    injector = Injector({"part": part}, features=features, widths=widths)
    additions, met = injector.additions(), RowSquares()
    assert place[1] == stride
    torch.manual_seed(5)
    on = features.voxels.voxels(stride)
    before = SparseTensor(features=torch.randn(len(on), widths[place]), voxels=on)
    after = Adder(additions, voxels=voxels.tensor.voxels, met=met)(*place, before)
    return before, after, features.statistics | injector.statistics(additions, met=met)


@pytest.mark.parametrize(("target", "count"), [("up", 1024 * (256 + 128 + 96 + 96)), ("skip", 1024 * 256)])
def test_size_of_the_reference_s_plan(target: Any, count: int) -> None:
    injection = Injection(InjectionSpec(target=target), sizes=sizes_of(BackboneSpec(), features=1024))
    assert sum(p.numel() for p in injection.parameters()) == count
    bottleneck = Injection(InjectionSpec(target=target, scales=(16,)), sizes=sizes_of(BackboneSpec(), features=1024))
    assert {name: p.shape for name, p in bottleneck.named_parameters()} == {
        "projections.stride16.linear.weight": (256, 1024)
    }
    stem = StemFusion(StemSpec(), sizes=sizes_of(BackboneSpec(), features=1024))
    assert {name: p.shape for name, p in stem.named_parameters()} == {"projection.linear.weight": (32, 1024)}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("up", {("bottleneck", 16), ("up", 8), ("up", 4), ("up", 2), ("up", 1)}),
        ("skip", {("bottleneck", 16), ("skip", 8), ("skip", 4), ("skip", 2), ("skip", 1)}),
    ],
)
def test_only_the_target_s_branches_change(
    target: Any, expected: set[Any], small_backbone: BackboneSpec, points: PointFeatures, voxels: Voxels
) -> None:
    torch.manual_seed(0)
    spec = InjectionSpec(scales=(16, 8, 4, 2, 1), target=target, init="random")
    injection = Injection(spec, sizes=sizes_of(small_backbone))
    stem = StemFusion(StemSpec(init="random"), sizes=sizes_of(small_backbone))
    features = BatchFeatures(points=points, in_space=voxels)
    injector = Injector({"injection": injection, "stem": stem}, features=features, widths=widths_of(small_backbone))
    additions, met = injector.additions(), RowSquares()
    adder = Adder(additions, voxels=voxels.tensor.voxels, met=met)
    changed = set()

    def spy(branch: Branch, stride: int, before: SparseTensor) -> SparseTensor:
        after = adder(branch, stride, before)
        if after is not before:
            assert not torch.equal(after.features, before.features)
            changed.add((branch, stride))
        return after

    Res16UNet(small_backbone)(voxels.tensor, inject=spy)
    assert changed == {*expected, ("stem", 1)}
    assert set(injector.statistics(additions, met=met)) == {
        f"injection_{where}_{what}"
        for where in ("stem", "s16", "s8", "s4", "s2", "s1")
        for what in ("empty_ratio", "relative_norm")
    }


@pytest.mark.parametrize("order", ["pool_then_project", "project_then_pool"])
@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("projection", ["linear", "linear_bn_gelu"])
@pytest.mark.parametrize("stride", [16, 2, 1])
def test_what_is_added_is_the_formula_on_voxels_with_a_feature_and_nothing_elsewhere(
    order: Any,
    pooling: Any,
    projection: Any,
    stride: int,
    small_backbone: BackboneSpec,
    points: PointFeatures,
    voxels: Voxels,
) -> None:
    torch.manual_seed(0)
    spec = InjectionSpec(scales=(stride,), pooling=pooling, order=order, projection=projection, init="random")  # type: ignore[arg-type]
    injection = Injection(spec, sizes=sizes_of(small_backbone))
    for module in injection.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.ones_(module.bias)  # after which even a zero feature would not stay zero
    left_half = points.valid & (torch.cat([voxels.tensor.voxels.corners])[voxels.voxel_of_point, 1] >= 0)
    points = replace(points, valid=left_half)  # so that coarse voxels are empty, too
    before, after, statistics = inject_once(injection, points, voxels, stride=stride)

    layers = injection.projections[f"stride{stride}"]
    levels = build_pyramid(points, voxels, strides=(stride, 1), pooling=pooling)
    level = levels[stride]
    if order == "pool_then_project":
        wanted = torch.zeros_like(before.features)
        wanted[level.mask] = layers(level.tensor.features[level.mask])
    else:  # the projected stride-1 features take the place of the features; by the engine's own pooling
        projected = torch.zeros(len(levels[1].mask), wanted_width := before.features.shape[1])
        projected[levels[1].mask] = layers(levels[1].tensor.features[levels[1].mask])
        values = projected[voxels.voxel_of_point]
        again = PointFeatures(tokens=values, rows=points.rows, weights=torch.ones(len(values), 1), valid=points.valid)
        wanted = build_pyramid(again, voxels, strides=(stride,), pooling=pooling)[stride].tensor.features
        assert wanted.shape[1] == wanted_width
    assert 0 < level.mask.sum() < len(level.mask)
    torch.testing.assert_close(after.features - before.features, wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(after.features[~level.mask], before.features[~level.mask])
    assert statistics[f"injection_s{stride}_empty_ratio"].item() == pytest.approx(1 - level.mask.float().mean().item())
    strength = (after.features - before.features).norm() / before.features.norm()
    assert statistics[f"injection_s{stride}_relative_norm"].item() == pytest.approx(strength.item(), rel=1e-4)


@pytest.mark.parametrize("order", ["pool_then_project", "project_then_pool"])
def test_a_norm_sees_only_rows_with_a_feature(
    order: Any, small_backbone: BackboneSpec, points: PointFeatures, voxels: Voxels
) -> None:
    spec = InjectionSpec(scales=(2,), order=order, projection="linear_bn_gelu", init="random")
    injection = Injection(spec, sizes=sizes_of(small_backbone))
    projection = cast(Projection, injection.projections["stride2"])
    assert projection.norm is not None
    norm = nn.BatchNorm1d(projection.norm.num_features)
    _, _, statistics = inject_once(injection, points, voxels, stride=2)
    level = build_pyramid(points, voxels, strides=(2, 1), pooling="max")[2 if order == "pool_then_project" else 1]
    norm(level.tensor.features[level.mask] @ projection.linear.weight.T)
    for name, value in norm.named_buffers():
        torch.testing.assert_close(projection.norm.get_buffer(name), value)
    assert statistics["injection_s2_normalised_voxels"] == level.mask.sum()


@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("stride", [8, 1])
def test_no_valid_point_adds_nothing_and_is_counted(
    pooling: Any, stride: int, small_backbone: BackboneSpec, points: PointFeatures, voxels: Voxels
) -> None:
    nothing = replace(points, valid=torch.zeros(1050, dtype=torch.bool))
    spec = InjectionSpec(scales=(stride,), pooling=pooling, projection="linear_bn_gelu", init="random")  # type: ignore[arg-type]
    injection = Injection(spec, sizes=sizes_of(small_backbone))
    before, after, statistics = inject_once(injection, nothing, voxels, stride=stride)
    assert torch.equal(before.features, after.features)
    for name, buffer in nn.BatchNorm1d(before.features.shape[1]).named_buffers():
        assert torch.equal(injection.get_buffer(f"projections.stride{stride}.norm.{name}"), buffer)
    assert statistics == {
        f"injection_s{stride}_empty_ratio": 1,
        f"injection_s{stride}_normalised_voxels": 0,
        f"injection_s{stride}_relative_norm": 0,
    }
    require_two_voxels(to_floats(statistics), where="nothing is normalised")


def test_one_row_cannot_be_normalised(small_backbone: BackboneSpec, points: PointFeatures, voxels: Voxels) -> None:
    """Which is said when the step's numbers are there; until then what is added is no number."""
    valid = torch.zeros(1050, dtype=torch.bool)
    valid[3] = True
    one = replace(points, valid=valid)
    injection = Injection(InjectionSpec(scales=(1,), projection="linear_bn_gelu"), sizes=sizes_of(small_backbone))
    stem = StemFusion(StemSpec(projection="linear_bn_gelu"), sizes=sizes_of(small_backbone))
    for part, name in ((injection, "injection_s1"), (stem, "injection_stem")):
        _, after, statistics = inject_once(part, one, voxels, stride=1)
        assert after.features.isnan().any()
        with pytest.raises(DitrError, match=f"only one voxel of the batch has a 2D feature at {name},") as caught:
            require_two_voxels(to_floats(statistics), where="scene0000_00_1")
        assert (caught.value.code, caught.value.where) == (Code.FEATURES, "scene0000_00_1")
        _, after, statistics = inject_once(part.eval(), one, voxels, stride=1)
        assert after.features.isfinite().all()
        require_two_voxels(to_floats(statistics), where="evaluation")
    linear = Injection(InjectionSpec(scales=(1,)), sizes=sizes_of(small_backbone))
    require_two_voxels(to_floats(inject_once(linear, one, voxels, stride=1)[2]), where="without a norm")


def test_a_tensor_on_other_voxels_is_refused(
    small_backbone: BackboneSpec, points: PointFeatures, voxels: Voxels
) -> None:
    injection = Injection(InjectionSpec(scales=(2,)), sizes=sizes_of(small_backbone))
    features = BatchFeatures(points=points, in_space=voxels)
    injector = Injector({"injection": injection}, features=features, widths=widths_of(small_backbone))
    adder = Adder(injector.additions(), voxels=voxels.tensor.voxels, met={})
    with pytest.raises(AssertionError, match=r"injection at up of stride 2: .*different voxels"):
        adder("up", 2, voxels.tensor)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("order", ["pool_then_project", "project_then_pool"])
@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("projection", ["linear", "linear_bn_gelu"])
def test_in_half_precision_additions_are_near_those_of_float32(
    half: torch.dtype,
    order: Any,
    pooling: Any,
    projection: Any,
    small_backbone: BackboneSpec,
    points: PointFeatures,
    voxels: Voxels,
) -> None:
    """And come in that precision; gradients are float32, and so is what the additions are added to where it is."""
    spec = InjectionSpec(scales=(4, 1), order=order, pooling=pooling, projection=projection, init="random")
    torch.manual_seed(0)
    injection = Injection(spec, sizes=sizes_of(small_backbone))
    found: list[Tensor] = []
    for dtype in (torch.float32, half):
        features = BatchFeatures(points=points, in_space=voxels)
        injector = Injector({"injection": injection}, features=features, widths=widths_of(small_backbone))
        injection.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            additions = injector.additions()
            assert {added.dtype for added in additions.values()} == {dtype}
            adder = Adder(additions, voxels=voxels.tensor.voxels, met={})
            before = voxels.tensor.with_features(torch.zeros(len(voxels.tensor.voxels), small_backbone.planes[7]))
            assert adder("up", 1, before).features.dtype == torch.float32
        sum(added.float().square().sum() for added in additions.values()).backward()  # type: ignore[union-attr]
        gradients = [p.grad.flatten() for p in injection.parameters() if p.grad is not None]
        found.append(torch.cat([*(added.detach().float().flatten() for added in additions.values()), *gradients]))
    exact, rounded = found
    assert float((rounded - exact).norm() / exact.norm()) < 0.02


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
