"""Points are made from pixels here by one camera and measured against another; expected errors are closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ditr.data_check.reprojection import EDGES_PX, FrameReprojection, measure
from ditr.data_check.reprojection_summary import histogram, summarise
from ditr.geometry.camera import SCANNET_SV_INTRINSICS as DECLARED
from ditr.geometry.camera import Intrinsics

POSE = np.eye(4)
POSE[:3, :3] = Rotation.from_euler("xyz", [1.9, 0.2, -0.7]).as_matrix()
POSE[:3, 3] = [0.4, -1.7, 0.9]


def pixels(count: int = 20_000, *, seed: int = 0) -> np.ndarray:
    """(count, 2) different pixels of the declared image."""
    drawn = np.random.default_rng(seed).choice(DECLARED.width * DECLARED.height, count, replace=False)
    return np.stack([drawn % DECLARED.width, drawn // DECLARED.width], axis=1)


def points_of(uv: np.ndarray, made_with: Intrinsics, *, seed: int = 0) -> np.ndarray:
    """(N, 3) float32, as they are stored: depths of 0.5 to 5 m, back-projected by hand."""
    z = np.random.default_rng(seed).uniform(0.5, 5, len(uv))
    x = z * (uv[:, 0] - made_with.cx) / made_with.fx
    y = z * (uv[:, 1] - made_with.cy) / made_with.fy
    return (POSE[:3, :3] @ np.stack([x, y, z]) + POSE[:3, 3:]).T.astype(np.float32)


def expected_errors(uv: np.ndarray, made_with: Intrinsics) -> np.ndarray:
    """Distance from the declared projection to the pixel, up to the whole pixels that cannot be told."""
    off = []
    for axis, (f, f_made, c, c_made) in enumerate(
        [
            (DECLARED.fx, made_with.fx, DECLARED.cx, made_with.cx),
            (DECLARED.fy, made_with.fy, DECLARED.cy, made_with.cy),
        ]
    ):
        declared = f / f_made * (uv[:, axis] - c_made) + c
        off.append(uv[:, axis] - round(c_made - c) - declared)
    return np.hypot(*off)


def found(uv: np.ndarray, made_with: Intrinsics, *, pose: np.ndarray = POSE) -> FrameReprojection:
    return measure(points_of(uv, made_with), pose_c2w=pose, intrinsics=DECLARED)


def test_points_of_the_declared_camera_have_no_error() -> None:
    measured = found(pixels(), DECLARED)
    assert measured.verdict == "lattice"
    assert measured.error_px is not None
    assert measured.error_px < 0.01
    assert measured.points == (20_000, *[0] * (len(EDGES_PX) - 2))


@pytest.mark.parametrize(
    "made_with",
    [
        replace(DECLARED, fx=571.6, fy=571.6),
        replace(DECLARED, cx=DECLARED.cx + 0.4),
        replace(DECLARED, cx=DECLARED.cx + 1.7),
        replace(DECLARED, cx=320.2, cy=240.3),
        replace(DECLARED, fx=525.0, fy=620.0, cx=316.1, cy=243.8),
    ],
)
def test_the_error_of_wrong_intrinsics_is_the_closed_form_and_the_right_ones_are_found(made_with: Intrinsics) -> None:
    uv = pixels()
    measured, expected = found(uv, made_with), expected_errors(uv, made_with)
    assert measured.error_px == pytest.approx(np.median(expected), abs=1e-3)
    counts = np.histogram(expected, EDGES_PX)[0]
    assert np.abs(np.array(measured.points) - counts).max() <= 40, "no more than points at the bins' bounds differ"
    fit = measured.intrinsics
    assert fit is not None
    assert (fit.fx, fit.fy) == pytest.approx((made_with.fx, made_with.fy), abs=1e-3)
    for fitted, made, declared in ((fit.cx, made_with.cx, DECLARED.cx), (fit.cy, made_with.cy, DECLARED.cy)):
        assert fitted == pytest.approx(made - round(made - declared), abs=1e-3), "whole pixels cannot be told"


def test_half_a_pixel_of_another_convention_is_more_than_the_limit() -> None:
    """Pixel centres at .5 instead of whole numbers: sqrt(2) / 2, where the nearest pixel says nothing of the kind."""
    measured = found(pixels(), replace(DECLARED, cx=DECLARED.cx + 0.5, cy=DECLARED.cy + 0.5))
    assert measured.error_px == pytest.approx(np.sqrt(0.5), abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(
    fx=st.floats(0.93, 1.08),
    fy=st.floats(0.93, 1.08),
    cx=st.floats(-0.45, 0.45),
    cy=st.floats(-0.45, 0.45),
    count=st.integers(500, 20_000),
)
def test_any_camera_near_the_declared_one_is_found(fx: float, fy: float, cx: float, cy: float, count: int) -> None:
    made_with = replace(DECLARED, fx=fx * DECLARED.fx, fy=fy * DECLARED.fy, cx=DECLARED.cx + cx, cy=DECLARED.cy + cy)
    uv = pixels(count, seed=count)
    measured = found(uv, made_with)
    assert measured.error_px == pytest.approx(np.median(expected_errors(uv, made_with)), abs=5e-3)


def nudged(pose: np.ndarray) -> np.ndarray:
    other = pose.copy()
    other[0, 3] += 0.05
    return other


def turned(pose: np.ndarray) -> np.ndarray:
    other = pose.copy()
    other[:3, :3] = Rotation.from_rotvec([0, 0, 0.01]).as_matrix() @ pose[:3, :3]
    return other


def identity(pose: np.ndarray) -> np.ndarray:
    return np.eye(4)


def looking_back(pose: np.ndarray) -> np.ndarray:
    return pose @ np.diag([1.0, -1, -1, 1])


@pytest.mark.parametrize("wrong", [np.linalg.inv, nudged, turned, identity, looking_back])
def test_under_a_wrong_pose_points_are_no_pixels(wrong) -> None:
    assert found(pixels(), DECLARED, pose=wrong(POSE)).verdict == "none"


def test_points_between_pixels_are_no_pixels() -> None:
    """Depth that was resampled, or points drawn from a mesh."""
    between = pixels() + np.random.default_rng(1).uniform(-0.5, 0.5, (20_000, 2))
    assert found(between, DECLARED).verdict == "none"
    assert found(pixels(), replace(DECLARED, fx=2 * DECLARED.fx, fy=2 * DECLARED.fy)).verdict == "none"


def test_some_bad_points_change_neither_verdict_nor_error() -> None:
    xyz = points_of(pixels(), replace(DECLARED, cx=DECLARED.cx + 0.25))
    xyz[::50] += np.random.default_rng(2).normal(size=(400, 3)).astype(np.float32)
    measured = measure(xyz, pose_c2w=POSE, intrinsics=DECLARED)
    assert measured.error_px == pytest.approx(0.25, abs=2e-3)


def test_repeated_points_count_as_their_pixel() -> None:
    """A frame with little depth is filled by drawing with replacement; one pixel may have most of the points."""
    uv = pixels(400)
    uv = np.concatenate([uv, np.repeat(uv[:1], 19_600, axis=0)])
    made_with = replace(DECLARED, fx=560.0, fy=560.0)
    fit = measure(points_of(uv, made_with), pose_c2w=POSE, intrinsics=DECLARED).intrinsics
    assert fit is not None
    assert (fit.fx, fit.fy) == pytest.approx((560.0, 560.0), abs=0.01)


def test_a_regular_subset_of_pixels_is_taken_for_what_was_declared() -> None:
    """Every twelfth pixel fits 1/12 more and less than the true focal length as well as that one."""
    grid = np.stack(np.meshgrid(np.arange(0, 640, 12), np.arange(0, 480, 12)), axis=-1).reshape(-1, 2)
    measured = found(grid, DECLARED)
    assert measured.error_px == pytest.approx(0, abs=1e-3)


def test_too_few_columns_are_not_judged() -> None:
    uv = pixels()
    strip = uv[uv[:, 0] < 20]
    assert found(strip, DECLARED).verdict == "unclear"
    assert found(strip, DECLARED, pose=np.linalg.inv(POSE)).verdict == "none"


def summary_of(*made_with: Intrinsics):
    camera = (DECLARED.fx, DECLARED.fy, DECLARED.cx, DECLARED.cy)
    measured = [found(pixels(), made, pose=POSE) for made in made_with]
    measured.append(FrameReprojection(verdict="none"))
    return summarise((f"scene{index:04}_00_0", frame, camera) for index, frame in enumerate(measured))


def test_the_histogram_counts_and_says_what_fits() -> None:
    summary = summary_of(DECLARED, replace(DECLARED, fx=571.6, fy=571.6), replace(DECLARED, fx=571.6, fy=571.6))
    assert (summary.frames, summary.none, summary.unclear, summary.refused) == (4, 1, 0, 3)
    assert summary.medians[0] == 1
    assert sum(summary.points) == 60_000
    text = "\n".join(histogram(summary))
    assert "fx 571.600 (571.600 to 571.600), declared 577.871" in text
    assert "no lattice" in text
    assert summary.examples[0].startswith("scene0001_00_0: the median point is declared 2.4")


def test_where_all_is_well_nothing_is_advised() -> None:
    camera = (DECLARED.fx, DECLARED.fy, DECLARED.cx, DECLARED.cy)
    summary = summarise([("scene0000_00_0", found(pixels(), DECLARED), camera)])
    assert summary.refused == 0
    assert "declared" not in "\n".join(histogram(summary))
    assert summarise([]).refused == 0
    assert histogram(summarise([]))
