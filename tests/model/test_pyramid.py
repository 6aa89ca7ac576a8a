"""The pyramid against loops over points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from ditr.data.batch import Batch
from ditr.model.point_features import PointFeatures
from ditr.model.res16unet import Res16UNet
from ditr.model.sparse import SparseTensor, require_same_voxels, voxelise
from ditr.spec.fusion_part import Branch
from ditr.spec.models import BackboneSpec
from tests.reference.pyramid import build_pyramid

VOXEL = 0.05
Key = tuple[int, ...]


@pytest.fixture
def points(batch: Batch, points_of: Callable[..., PointFeatures]) -> PointFeatures:
    """Mostly negative features; everything with x < -0.2 of the first frame is not valid: whole coarse voxels."""
    generator = torch.Generator().manual_seed(0)
    total = sum(len(sample.xyz) for sample in batch)
    valid = torch.rand(total, generator=generator) > 0.3
    first = batch.samples[0].xyz
    valid[: len(first)] &= first[:, 0] >= -0.2
    return points_of(torch.randn(total, 5, generator=generator) - 2, valid)


def keys_of_points(batch: Batch) -> list[Key]:
    keys: list[Key] = []
    for index, sample in enumerate(batch):
        corners = np.floor(sample.xyz.numpy() / np.float32(VOXEL)).astype(int)
        keys += [(index, *corner) for corner in corners.tolist()]
    return keys


def parent(key: Key, stride: int) -> Key:
    return (key[0], *(corner // stride * stride for corner in key[1:]))


def expected(batch: Batch, points: PointFeatures, *, stride: int, pooling: str) -> dict[Key, np.ndarray | None]:
    """Feature of every voxel of one stride, None without a valid point."""
    members = defaultdict(list)
    for key, value, valid in zip(keys_of_points(batch), points.tokens.numpy(), points.valid.tolist(), strict=True):
        members[key] += [value] if valid else []
    level: dict[Key, np.ndarray | None] = {
        key: np.mean(values, axis=0) if values else None for key, values in members.items()
    }
    if pooling == "max":  # in one go from stride 1
        return combine(level, stride, np.max) if stride > 1 else level
    for step in (2, 4, 8, 16):
        if step <= stride:
            level = combine(level, step, np.mean)
    return level


def combine(level: dict[Key, np.ndarray | None], stride: int, how: object) -> dict[Key, np.ndarray | None]:
    children = defaultdict(list)
    for key, value in level.items():
        children[parent(key, stride)] += [] if value is None else [value]
    return {key: how(values, axis=0) if values else None for key, values in children.items()}  # type: ignore[operator]


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_levels_are_those_of_a_loop_over_points(batch: Batch, points: PointFeatures, pooling: str) -> None:
    voxels = voxelise(batch, voxel_size_m=VOXEL, engine="minkowski")
    levels = build_pyramid(points, voxels, strides=(16, 8, 4, 2, 1), pooling=pooling)  # type: ignore[arg-type]
    assert list(levels) == [16, 8, 4, 2, 1]
    for stride, level in levels.items():
        loop = expected(batch, points, stride=stride, pooling=pooling)
        rows = [tuple(row) for row in level.tensor.voxels.corners.tolist()]
        assert sorted(rows) == sorted(loop)
        assert level.mask.tolist() == [loop[row] is not None for row in rows]
        assert not level.mask.all(), "the case must have voxels without a valid point"
        wanted = np.stack([np.zeros(5) if loop[row] is None else loop[row] for row in rows])
        np.testing.assert_allclose(level.tensor.features.numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_frame_without_a_valid_point_stays_empty_beside_another(
    batch: Batch, points: PointFeatures, pooling: str
) -> None:
    only_second = points.valid.clone()
    only_second[: len(batch.samples[0].xyz)] = False
    voxels = voxelise(batch, voxel_size_m=VOXEL, engine="minkowski")
    alone = replace(points, valid=only_second)
    for level in build_pyramid(alone, voxels, strides=(8, 1), pooling=pooling).values():  # type: ignore[arg-type]
        first = level.tensor.voxels.corners[:, 0] == 0
        assert not level.mask[first].any()
        assert level.tensor.features[first].abs().max() == 0
        assert level.mask[~first].any()


def test_map_keys_are_the_backbone_s_at_every_stride(
    batch: Batch, points: PointFeatures, small_backbone: BackboneSpec
) -> None:
    voxels = voxelise(batch, voxel_size_m=VOXEL, engine="minkowski")
    levels = build_pyramid(points, voxels, strides=(16, 8, 4, 2, 1), pooling="max")
    checked = []

    def check(branch: Branch, stride: int, tensor: SparseTensor) -> SparseTensor:
        require_same_voxels(tensor.voxels, levels[stride].tensor.voxels, what=branch)
        checked.append(stride)
        return tensor

    Res16UNet(small_backbone).eval()(voxels.tensor, inject=check)
    assert checked == [1, 16, 8, 8, 4, 4, 2, 2, 1, 1]
