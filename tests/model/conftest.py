"""Small frames and a small model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ditr.data.batch import Batch, Sample, Targets
from ditr.model.esam import EsamSingleView
from ditr.model.point_features import PointFeatures
from ditr.spec.fusion import FusionSpec
from ditr.spec.models import BackboneSpec, DecoderSpec, ModelSpec

CHANNELS = 12
"""Of the 2D features."""


@pytest.fixture(scope="session")
def small_backbone() -> BackboneSpec:
    return BackboneSpec(planes=(4, 6, 8, 10, 12, 10, 8, 6), layers=(1, 2, 1, 1, 1, 1, 2, 1), stem_channels=5)


@pytest.fixture(scope="session")
def small_model(small_backbone: BackboneSpec) -> ModelSpec:
    decoder = DecoderSpec(width=16, heads=2, feedforward=24)
    return ModelSpec(voxel_size_m=0.05, backbone=small_backbone, decoder=decoder)


@pytest.fixture(scope="session")
def make_sample() -> Callable[..., Sample]:
    """Points of a floor and a wall, some negative; about a tenth has no 2D feature."""

    def make(seed: int, *, points: int = 600, superpoints: int = 9, channels: int | None = CHANNELS) -> Sample:
        generator = torch.Generator().manual_seed(seed)
        plane = torch.rand(points, 2, generator=generator) * 2 - 1
        zero = torch.zeros(points // 2)
        floor = torch.stack([plane[: points // 2, 0], plane[: points // 2, 1], zero], dim=1)
        rest = plane[points // 2 :]
        wall = torch.stack([rest[:, 0], torch.full((len(rest),), -1.0), rest[:, 1]], dim=1)
        xyz = torch.cat([floor, wall])
        ids = torch.arange(points) % superpoints
        empty = torch.zeros(0, dtype=torch.int64)
        return Sample(
            frame_id=f"scene0000_00_{seed}",
            seed=seed,
            xyz=xyz + 0.01 * torch.randn(points, 3, generator=generator),
            colour=torch.randn(points, 3, generator=generator),
            camera=torch.zeros(3, dtype=torch.float64),
            superpoints=ids[torch.randperm(points, generator=generator)],
            num_superpoints=superpoints,
            uv=torch.rand(points, 2, generator=generator) * torch.tensor([639.0, 479.0]),
            uv_valid=torch.rand(points, generator=generator) > 0.1,
            map_hw=(480, 640),
            tokens=None if channels is None else torch.randn(channels, 6, 8, generator=generator).half(),
            targets=Targets(
                instance_of_point=empty,
                instance_of_superpoint=empty,
                class_of_superpoint=empty,
                labels=empty,
                ids=empty,
            ),
        )

    return make


@pytest.fixture(scope="session")
def points_of() -> Callable[..., PointFeatures]:
    """Points that read a token of their own each: (N, C) values and (N,) bool."""

    def make(values: torch.Tensor, valid: torch.Tensor) -> PointFeatures:
        rows = torch.arange(len(values))[:, None]
        return PointFeatures(tokens=values, rows=rows, weights=torch.ones(len(values), 1), valid=valid)

    return make


@pytest.fixture
def batch(make_sample: Callable[..., Sample]) -> Batch:
    """Two frames that differ in points and superpoints."""
    return Batch(samples=(make_sample(1), make_sample(2, points=450, superpoints=7)))


@pytest.fixture(scope="session")
def build(small_model: ModelSpec) -> Callable[[FusionSpec], EsamSingleView]:
    """The small model with a fusion, always from the same torch seed."""

    def make(fusion: FusionSpec) -> EsamSingleView:
        torch.manual_seed(7)
        return EsamSingleView(
            small_model, fusion=fusion, feature_channels=CHANNELS, sampling="bilinear", query_fraction=0.5
        )

    return make
