from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.ndimage import map_coordinates, uniform_filter1d

from ditr.data.elastic import elastic_shift


def shift_by_hand(xyz: np.ndarray, *, granularity: float, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """The definition, node by node and point by point, without scipy."""
    size = [int(math.floor(np.abs(xyz[:, axis]).max()) // granularity) + 3 for axis in range(3)]
    noise = rng.standard_normal((3, *size), dtype=np.float32).astype(np.float64)
    fields = [blurred(blurred(field)) for field in noise]
    axes = [np.linspace(-(b - 1) * granularity, (b - 1) * granularity, b) for b in size]
    return np.array([[magnitude * trilinear(field, axes, point) for field in fields] for point in xyz])


def blurred(field: np.ndarray) -> np.ndarray:
    for axis in range(3):
        padded = np.pad(field, [(1, 1) if other == axis else (0, 0) for other in range(3)])
        parts = [np.take(padded, range(start, start + field.shape[axis]), axis=axis) for start in range(3)]
        field = sum(parts) / 3  # type: ignore[assignment]
    return field


def trilinear(field: np.ndarray, axes: list[np.ndarray], point: np.ndarray) -> float:
    lower, share = [], []
    for axis, x in zip(axes, point, strict=True):
        if not axis[0] <= x <= axis[-1]:
            return 0.0
        node = min(int(np.searchsorted(axis, x, side="right")) - 1, len(axis) - 2)
        lower.append(node)
        share.append((x - axis[node]) / (axis[node + 1] - axis[node]))
    total = 0.0
    for corner in itertools.product((0, 1), repeat=3):
        weight = math.prod(s if up else 1 - s for s, up in zip(share, corner, strict=True))
        total += weight * float(field[tuple(node + up for node, up in zip(lower, corner, strict=True))])
    return total


@pytest.mark.parametrize("seed", range(30))
def test_the_shift_has_the_bits_of_scipys_interpolation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    granularity = float(rng.choice([1.0, 3.5, 6.0, 20.0]))
    xyz = rng.normal(size=(400, 3)) * rng.choice([0.01, 1.0, 30.0, 100.0])
    if seed % 3 == 0:  # points on nodes
        xyz = np.round(xyz / granularity) * granularity
    size = (np.floor(np.abs(xyz).max(axis=0)) // granularity).astype(np.int64) + 3
    noise = np.random.default_rng(1).standard_normal((3, *size), dtype=np.float32)
    for axis in (0, 1, 2, 0, 1, 2):
        noise = uniform_filter1d(noise, size=3, axis=1 + axis, mode="constant")
    nodes = (xyz / (2 * granularity) + (size - 1) / 2).T
    scipys = np.stack([map_coordinates(field, nodes, order=1, output=np.float64) for field in noise], axis=1) * 40.0
    ours = elastic_shift(xyz, granularity=granularity, magnitude=40.0, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(ours, scipys)


@pytest.mark.parametrize(("granularity", "magnitude"), [(6.0, 40.0), (20.0, 160.0), (3.5, 7.0)])
def test_the_shift_equals_the_definition(granularity: float, magnitude: float) -> None:
    xyz = np.random.default_rng(0).uniform([-70, -40, -9], [65, 50, 30], (40, 3))
    fast = elastic_shift(xyz, granularity=granularity, magnitude=magnitude, rng=np.random.default_rng(5))
    slow = shift_by_hand(xyz, granularity=granularity, magnitude=magnitude, rng=np.random.default_rng(5))
    np.testing.assert_allclose(fast, slow, atol=1e-4 * magnitude)
    assert np.abs(slow).max() > 0.05 * magnitude


def test_the_shift_is_smooth_on_the_scale_of_its_grid() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-100, 100, (4000, 3))
    near = elastic_shift(
        np.concatenate([xyz, xyz + 0.2]), granularity=20.0, magnitude=160.0, rng=np.random.default_rng(1)
    )
    step = np.abs(near[:4000] - near[4000:]).max()
    assert step < 0.05 * np.abs(near).max()


def test_points_at_the_origin_need_no_special_case() -> None:
    shift = elastic_shift(np.zeros((3, 3)), granularity=6.0, magnitude=40.0, rng=np.random.default_rng(0))
    assert np.isfinite(shift).all()
