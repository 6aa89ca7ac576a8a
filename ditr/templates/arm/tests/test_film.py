"""The fusion is what its formula says, starts as nothing, and leaves points without a 2D feature alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ditr
from ditr.fusion import BatchFeatures, Sizes, features_of_points

X = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def film() -> Any:
    torch.manual_seed(0)
    spec = ditr.load_spec(Path(__file__).parents[1] / "specs" / "film.yaml")
    return spec.fusion.parts["film"].build(Sizes(features=12, voxels={}, points=6))


@pytest.fixture
def features() -> BatchFeatures:
    """Of 50 points, the first ten of which read none."""
    values = torch.randn(50, 12, generator=torch.Generator().manual_seed(2))
    return features_of_points(values, valid=torch.arange(50) >= 10)


def test_it_starts_as_nothing(film: Any, features: BatchFeatures) -> None:
    assert torch.equal(film.fuse_points(X, features), X)


def test_it_scales_and_shifts_points_that_read_a_feature(film: Any, features: BatchFeatures) -> None:
    torch.nn.init.normal_(film.last.weight)
    fused = film.fuse_points(X, features)
    for row in (10, 49):
        scale, shift = film.last(torch.relu(film.first(features.points.tokens[row]))).chunk(2)
        torch.testing.assert_close(fused[row], X[row] * (1 + scale) + shift)
    assert torch.equal(fused[:10], X[:10])
