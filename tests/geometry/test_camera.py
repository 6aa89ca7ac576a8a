from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ditr.geometry.camera import SCANNET_SV_INTRINSICS, Intrinsics, backproject, project

seeds = st.integers(0, 2**32 - 1)


def random_pose(rng: np.random.Generator) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    pose[:3, 3] = rng.normal(0, 3, 3)
    return pose


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_projecting_a_backprojected_pixel_gives_the_pixel(seed):
    rng = np.random.default_rng(seed)
    pose = random_pose(rng)
    uv = np.stack([rng.uniform(-0.5, 639.4, 50), rng.uniform(-0.5, 479.4, 50)], axis=1)
    points = backproject(uv, rng.uniform(0.1, 10, 50), pose_c2w=pose, intrinsics=SCANNET_SV_INTRINSICS)
    seen = project(points, pose_c2w=pose, intrinsics=SCANNET_SV_INTRINSICS)
    assert seen.valid.all()
    np.testing.assert_allclose(seen.uv, uv, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_integer_pixels_survive_float32_points_within_a_hundredth(seed):
    rng = np.random.default_rng(seed)
    pose = random_pose(rng)
    uv = np.stack([rng.integers(0, 640, 50), rng.integers(0, 480, 50)], axis=1).astype(float)
    points = backproject(uv, rng.uniform(0.3, 8, 50), pose_c2w=pose, intrinsics=SCANNET_SV_INTRINSICS)
    seen = project(points.astype(np.float32), pose_c2w=pose, intrinsics=SCANNET_SV_INTRINSICS)
    assert np.abs(seen.uv - uv).max() < 0.01


def test_the_pinhole_equations_by_hand():
    camera = Intrinsics(fx=100, fy=200, cx=50, cy=40, width=101, height=81)
    points = np.array([[0, 0, 2.0], [1, 0, 2], [0, 0.25, 2], [0, 0, -1], [0, 0, 0]])
    seen = project(points, pose_c2w=np.eye(4), intrinsics=camera)
    np.testing.assert_allclose(seen.uv[:3], [[50, 40], [100, 40], [50, 65]])
    assert np.isnan(seen.uv[3:]).all()
    assert seen.depth_ok.tolist() == [True, True, True, False, False]
    assert seen.valid.tolist() == [True, True, True, False, False]


def test_the_image_ends_half_a_pixel_outside_its_outermost_centres():
    camera = Intrinsics(fx=1, fy=1, cx=0, cy=0, width=4, height=3)
    for u, inside in ((-0.51, False), (-0.5, True), (3.49, True), (3.5, False)):
        seen = project(np.array([[u, 0, 1.0]]), pose_c2w=np.eye(4), intrinsics=camera)
        assert bool(seen.boundary_ok[0]) is inside
    for v, inside in ((-0.51, False), (-0.5, True), (2.49, True), (2.5, False)):
        seen = project(np.array([[0, v, 1.0]]), pose_c2w=np.eye(4), intrinsics=camera)
        assert bool(seen.boundary_ok[0]) is inside


def test_the_pose_moves_the_camera_not_the_world():
    pose = np.eye(4)
    pose[:3, 3] = [1, 2, 3]
    seen = project(np.array([[1, 2, 4.0]]), pose_c2w=pose, intrinsics=SCANNET_SV_INTRINSICS)
    np.testing.assert_allclose(seen.uv[0], [319.5, 239.5])
