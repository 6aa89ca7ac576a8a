"""Images brought to another camera are held against what that camera would have seen of the same plane."""

from __future__ import annotations

import numpy as np
import pytest

from ditr.captures.one_camera import colour_in, depth_in, kept_camera, labels_in
from ditr.geometry.camera import Intrinsics

COARSE = Intrinsics(fx=57.0, fy=60.0, cx=31.2, cy=23.9, width=64, height=48)
FINE = Intrinsics(fx=151.0, fy=149.5, cx=81.7, cy=60.3, width=160, height=120)
PLANE = np.array([0.2, -0.35, 0.9, 2.1])
"""n x = d of n and d."""


def plane_depth(camera: Intrinsics) -> np.ndarray:
    """(H, W) metres, in closed form."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u, dtype=float)], axis=-1)
    return np.asarray(PLANE[3] / (rays @ PLANE[:3]))


@pytest.mark.parametrize(("source", "target"), [(COARSE, FINE), (FINE, COARSE), (FINE, FINE)])
def test_depth_of_a_plane_is_exact_between_pixels(source: Intrinsics, target: Intrinsics) -> None:
    found, true = depth_in(plane_depth(source), source=source, target=target), plane_depth(target)
    inside = np.zeros_like(found, dtype=bool)  # beyond the outermost pixel centres there is nothing to be between
    inside[4:-4, 4:-4] = True
    assert np.abs(found - true)[inside & (found > 0)].max() < 1e-12
    assert (found > 0)[inside].mean() > 0.98


def test_depth_takes_the_nearest_pixel_at_jumps_and_holes_and_makes_none_up() -> None:
    depth = np.full((48, 64), 1.0)
    depth[:, 32:] = 3.0
    depth[10:20, 10:20] = 0.0
    found = depth_in(depth, source=COARSE, target=FINE)
    assert set(np.unique(np.round(found, 9))) == {0.0, 1.0, 3.0}
    v, u = np.mgrid[:120, :160]
    x = np.rint((u - FINE.cx) / FINE.fx * COARSE.fx + COARSE.cx)
    y = np.rint((v - FINE.cy) / FINE.fy * COARSE.fy + COARSE.cy)
    inside = (x >= 0) & (x < 64) & (y >= 0) & (y < 48)
    hole = (x >= 10) & (x < 20) & (y >= 10) & (y < 20)
    expected = np.where(inside & ~hole, np.where(x >= 32, 3.0, 1.0), 0.0)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_colour_is_where_depth_is() -> None:
    """A ramp of colour over the field of view has the same colour at the same ray, whatever the camera."""

    def ramp(camera: Intrinsics) -> np.ndarray:
        v, u = np.mgrid[: camera.height, : camera.width]
        x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
        return np.stack([128 + 180 * x, 128 + 180 * y, 128 + 90 * (x - y)], axis=-1)

    for source, target in ((FINE, COARSE), (COARSE, FINE)):
        image = np.clip(np.rint(ramp(source)), 0, 255).astype(np.uint8)
        found = colour_in(image, source=source, target=target)
        assert found.shape == (target.height, target.width, 3)
        true, inner = ramp(target), (slice(4, -4), slice(4, -4))
        seen = (true > 3) & (true < 252)
        assert np.abs(found - true)[inner][seen[inner]].max() < 2.0
    assert colour_in(image, source=COARSE, target=COARSE) is image


def test_colour_beyond_the_image_is_its_border() -> None:
    wider = Intrinsics(fx=30.0, fy=30.0, cx=31.5, cy=23.5, width=64, height=48)
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:, 0], image[:, -1] = (200, 0, 0), (0, 200, 0)
    found = colour_in(image, source=COARSE, target=wider)
    assert found[24, 2].tolist() == [200, 0, 0]
    assert found[24, -2].tolist() == [0, 200, 0]


def test_labels_are_never_mixed() -> None:
    labels = np.random.default_rng(0).integers(0, 9, (48, 64))
    found = labels_in(labels, source=COARSE, target=FINE, outside=-1)
    assert set(np.unique(found)) <= {-1, *range(9)}
    u = round((80 - FINE.cx) / FINE.fx * COARSE.fx + COARSE.cx)
    v = round((60 - FINE.cy) / FINE.fy * COARSE.fy + COARSE.cy)
    assert found[60, 80] == labels[v, u]


@pytest.mark.parametrize(
    ("size", "kept"), [((640, 480), (640, 480)), ((1920, 1440), (640, 480)), ((1440, 1920), (480, 640)),
                       ((1200, 680), (640, 363)), ((160, 120), (160, 120))],
)  # fmt: skip
def test_the_kept_camera_sees_the_same_field(size: tuple[int, int], kept: tuple[int, int]) -> None:
    camera = Intrinsics(fx=600.0, fy=590.0, cx=size[0] / 2 - 3, cy=size[1] / 2 + 5, width=size[0], height=size[1])
    found = kept_camera(camera)
    assert (found.width, found.height) == kept
    for corner in (-0.5, 1.0):
        end = corner * size[0] - 0.5 if corner == 1 else corner
        end_kept = corner * kept[0] - 0.5 if corner == 1 else corner
        assert (end - camera.cx) / camera.fx == pytest.approx((end_kept - found.cx) / found.fx, abs=1e-12)
