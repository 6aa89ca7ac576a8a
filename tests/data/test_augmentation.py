from __future__ import annotations

import numpy as np
import pytest

from ditr.data.augmentation import augment
from ditr.data.elastic import elastic_shift
from ditr.spec.models import AugmentationSpec, ElasticSpec

POINTS = np.random.default_rng(7).normal(size=(500, 3)).astype(np.float32)


def one(**changes: object) -> AugmentationSpec:
    """An augmentation that does nothing but what is asked for."""
    nothing = {"flip_probability": 0.0, "rotation_rad": 0.0, "scale": (1.0, 1.0), "translation_std_m": 0.0}
    return AugmentationSpec.model_validate({**nothing, "elastic": None, **changes})


def run(spec: AugmentationSpec, *, seed: int = 0) -> np.ndarray:
    return augment(POINTS, spec=spec, voxel_size_m=0.02, rng=np.random.default_rng(seed)).xyz


def test_nothing_asked_for_changes_nothing() -> None:
    augmented = augment(POINTS, spec=one(), voxel_size_m=0.02, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(augmented.xyz, POINTS)


def test_flips_mirror_x_and_y_independently_and_never_z() -> None:
    seen = {tuple(np.sign(run(one(flip_probability=0.5), seed=seed)[0] * POINTS[0])) for seed in range(60)}
    assert seen == {(x, y, 1.0) for x in (1.0, -1.0) for y in (1.0, -1.0)}
    np.testing.assert_allclose(run(one(flip_probability=1.0)), POINTS * [-1, -1, 1], atol=1e-6)


def test_rotation_is_counter_clockwise_about_z_by_the_first_uniform_draw_after_the_coins() -> None:
    rng = np.random.default_rng(3)
    rng.random(2)
    angle = rng.uniform(-3.14, 3.14)
    turned = (POINTS[:, 0] + 1j * POINTS[:, 1]) * np.exp(1j * angle)
    expected = np.stack([turned.real, turned.imag, POINTS[:, 2]], axis=1)
    np.testing.assert_allclose(run(one(rotation_rad=3.14), seed=3), expected, atol=1e-5)


def test_angles_fill_their_range() -> None:
    x_axis = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    spec = one(rotation_rad=3.14)
    turned = [
        augment(x_axis, spec=spec, voxel_size_m=0.02, rng=np.random.default_rng(seed)).xyz[0] for seed in range(400)
    ]
    angles = np.array([np.arctan2(y, x) for x, y, _ in turned])
    assert np.histogram(angles, bins=8, range=(-np.pi, np.pi))[0].min() > 25


def test_scale_is_isotropic_and_within_its_range() -> None:
    ratios = np.stack([run(one(scale=(0.8, 1.2)), seed=seed)[0] / POINTS[0] for seed in range(200)])
    np.testing.assert_allclose(ratios[:, 0], ratios[:, 2], rtol=1e-5)
    assert 0.8 <= ratios.min() < 0.83
    assert 1.17 < ratios.max() <= 1.2 + 1e-6


def test_translation_comes_last_with_the_stated_spread_on_each_axis() -> None:
    spec = one(translation_std_m=0.1, scale=(5.0, 5.0))
    shifts = np.stack([(run(spec, seed=seed) - 5 * POINTS)[:2] for seed in range(400)])
    np.testing.assert_allclose(shifts[:, 0], shifts[:, 1], atol=1e-5)
    np.testing.assert_allclose(shifts[:, 0].std(axis=0), 0.1, rtol=0.15)
    assert np.abs(np.corrcoef(shifts[:, 0].T) - np.eye(3)).max() < 0.15


def test_elastic_acts_on_the_rigidly_moved_points_twice_in_voxels() -> None:
    elastic = ElasticSpec(probability=1.0, granularity=(6.0, 20.0), magnitude=(40.0, 160.0))
    augmented = augment(POINTS, spec=one(elastic=elastic), voxel_size_m=0.04, rng=np.random.default_rng(9))
    rng = np.random.default_rng(9)
    _ = rng.random(2), rng.uniform(), rng.uniform(), rng.normal(size=3), rng.random()  # what comes before the noise
    voxels = POINTS.astype(np.float64) / 0.04
    voxels = voxels + elastic_shift(voxels, granularity=6.0, magnitude=40.0, rng=rng)
    voxels = voxels + elastic_shift(voxels, granularity=20.0, magnitude=160.0, rng=rng)
    np.testing.assert_allclose(augmented.xyz, voxels * 0.04, atol=1e-5)


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.5, 30, 70), (1.0, 100, 100)])
def test_one_coin_decides_the_elastic_distortion(probability: float, low: int, high: int) -> None:
    spec = one(elastic=ElasticSpec(probability=probability))
    few = POINTS[:20]
    runs = [augment(few, spec=spec, voxel_size_m=0.02, rng=np.random.default_rng(seed)) for seed in range(100)]
    assert low <= sum(not np.array_equal(each.xyz, few) for each in runs) <= high


def test_the_elastic_part_does_not_change_the_rigid_draws() -> None:
    barely = ElasticSpec(probability=1.0, magnitude=(1e-6, 1e-6))
    with_elastic, without = AugmentationSpec(elastic=barely), AugmentationSpec(elastic=None)
    np.testing.assert_allclose(run(with_elastic, seed=4), run(without, seed=4), atol=1e-6)
