from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch
from torch import nn

from ditr.model.bifusion import BiFusion
from ditr.model.fusion import BatchFeatures
from ditr.model.point_features import PointFeatures
from ditr.model.sparse import Voxels
from ditr.spec.fusion import BiFusionSpec
from ditr.spec.fusion_part import Sizes

SAMPLE_OF_POINT = torch.tensor([0] * 30 + [1] * 20)
IN_SPACE = Voxels(tensor=cast(Any, None), voxel_of_point=SAMPLE_OF_POINT, sizes=(30, 20))


@dataclass(frozen=True)
class Fused:
    features: torch.Tensor
    balance_loss: torch.Tensor
    statistics: dict[str, torch.Tensor]


@pytest.fixture
def fusion() -> BiFusion:
    torch.manual_seed(0)
    return BiFusion(BiFusionSpec(width=32, balance_weight=2.0), sizes=Sizes(features=10, voxels={}, points=6))


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(50, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def points(points_of: Callable[..., PointFeatures]) -> PointFeatures:
    generator = torch.Generator().manual_seed(2)
    valid = torch.rand(50, generator=generator) > 0.3
    return points_of(torch.randn(50, 10, generator=generator), valid)


def fuse(fusion: BiFusion, features: torch.Tensor, points: PointFeatures) -> Fused:
    given = BatchFeatures(points=points, in_space=IN_SPACE, seeds=(3, 4))
    return Fused(fusion.fuse_points(features, given), given.losses["balance_loss"], given.statistics)


def test_starts_as_identity_with_a_gate_that_leans_to_2d(
    fusion: BiFusion, features: torch.Tensor, points: PointFeatures
) -> None:
    fused = fuse(fusion.eval(), features, points)
    assert torch.equal(fused.features, features)
    for in_2d, in_3d in zip(*(fused.statistics[f"fusion_{one}_ratio"].tolist() for one in ("2d", "3d")), strict=True):
        assert 0.55 < in_2d < 0.9  # sigmoid(1) = 0.73
        assert in_2d + in_3d == pytest.approx(1)


def test_output_is_the_formula_and_points_without_a_feature_are_untouched(
    fusion: BiFusion, features: torch.Tensor, points: PointFeatures
) -> None:
    nn.init.normal_(fusion.residual.weight)
    nn.init.normal_(fusion.residual.bias)
    fused = fuse(fusion.eval(), features, points)
    gates = []
    for sample in (0, 1):
        rows = ((sample == SAMPLE_OF_POINT) & points.valid).nonzero().squeeze(1)
        in_2d = fusion.head(fusion.adapt_2d(points.dense()[rows]))
        in_3d = fusion.head(fusion.adapt_3d(features[rows]))
        unit = [x / x.norm(dim=1, keepdim=True) for x in (in_2d, in_3d)]
        alpha = torch.sigmoid(fusion.gate.layers(torch.cat(unit, dim=1)))
        mixed = alpha * in_2d + (1 - alpha) * in_3d
        mixed = mixed * fusion.squeeze.layers(mixed.mean(dim=0))  # the mean of this frame's valid points alone
        torch.testing.assert_close(fused.features[rows], features[rows] + fusion.residual(mixed))
        gates.append(alpha)
    assert torch.equal(fused.features[~points.valid], features[~points.valid])

    gate = torch.cat(gates)
    ratio, spread = (fused.statistics[f"fusion_{name}"].tolist() for name in ("2d_ratio", "gate_std"))
    assert ratio == pytest.approx([one.mean().item() for one in gates], rel=1e-5)
    assert spread == pytest.approx([one.std(correction=0).item() for one in gates], rel=1e-4)
    assert fused.balance_loss.item() == pytest.approx(2 * (gate.mean().item() - 0.4) ** 2, rel=1e-4)


def test_a_layer_on_tokens_is_that_on_points(fusion: BiFusion, features: torch.Tensor) -> None:
    """Seven tokens, four a point, against every point's own feature; gradients too."""
    nn.init.normal_(fusion.residual.weight)
    nn.init.normal_(fusion.adapt_2d[0].bias)  # which weights that did not sum to 1 would scale
    generator = torch.Generator().manual_seed(4)
    shared = PointFeatures(
        tokens=torch.randn(7, 10, generator=generator),
        rows=torch.randint(7, (50, 4), generator=generator),
        weights=nn.functional.normalize(torch.rand(50, 4, generator=generator), p=1),
        valid=torch.rand(50, generator=generator) > 0.3,
    )
    values = shared.dense()
    direct = PointFeatures(tokens=values, rows=torch.arange(50)[:, None], weights=torch.ones(50, 1), valid=shared.valid)
    found = []
    for points in (shared, direct):
        fusion.eval().zero_grad()
        out = fuse(fusion, features, points).features
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad.clone() for p in fusion.parameters() if p.grad is not None)])
    assert len(found[0]) == len(list(fusion.parameters())) + 1
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_no_valid_point_is_identity_and_learns_nothing(
    fusion: BiFusion, features: torch.Tensor, points: PointFeatures
) -> None:
    nothing = replace(points, valid=torch.zeros(50, dtype=torch.bool))
    nn.init.normal_(fusion.residual.weight)
    fused = fuse(fusion, features, nothing)
    assert torch.equal(fused.features, features)
    assert all(value.isnan() for value in fused.statistics.values())
    assert fused.balance_loss == 0
    (fused.features.sum() + fused.balance_loss).backward()
    assert all(p.grad is None or not p.grad.any() for p in fusion.parameters())


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_and_the_gate_is_in_float32(
    fusion: BiFusion, features: torch.Tensor, points: PointFeatures, half: torch.dtype
) -> None:
    nn.init.normal_(fusion.residual.weight)
    exact = fuse(fusion.eval(), features, points)
    with torch.autocast("cpu", dtype=half):
        found = fuse(fusion, features, points)
    torch.testing.assert_close(found.features, exact.features, atol=0.1, rtol=0.02)
    torch.testing.assert_close(found.balance_loss, exact.balance_loss, atol=1e-3, rtol=0.02)
    assert {value.dtype for value in (*found.statistics.values(), found.balance_loss)} == {torch.float32}


def test_balance_loss_pulls_the_gate_to_its_target(
    fusion: BiFusion, features: torch.Tensor, points: PointFeatures
) -> None:
    optimiser = torch.optim.AdamW(fusion.parameters(), lr=1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        fuse(fusion, features, points).balance_loss.backward()
        optimiser.step()
    assert fuse(fusion.eval(), features, points).statistics["fusion_2d_ratio"] == pytest.approx(0.4, abs=0.08)
