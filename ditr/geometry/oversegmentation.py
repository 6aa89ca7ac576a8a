"""Superpoints: an over-segmentation of what the sensor gives (colour, its texture, depth, normals); no ground truth."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.segmentation import slic

from ditr.geometry.camera import Intrinsics

SEGMENTS = 110
_HALF = 2
_COMPACTNESS = 0.12


def oversegment(colour: np.ndarray, depth_mm: np.ndarray, *, intrinsics: Intrinsics) -> np.ndarray:
    """(H, W) int64 segment of every pixel, from colour (H, W, 3) uint8 and depth (H, W) uint16, 0 = missing.

    Works at half resolution; pixels without depth get a segment too (callers leave them out).
    """
    small = colour[::_HALF, ::_HALF].astype(np.float32) / 255
    depth = _filled(depth_mm[::_HALF, ::_HALF].astype(np.float32) / 1000, depth_mm[::_HALF, ::_HALF] > 0)
    channels = np.concatenate(
        [
            _smooth(rgb2lab(small).astype(np.float32), 1.5) / 30,
            _texture(colour),
            0.8 * _smooth(_normals(depth, intrinsics), 1.0),
            0.8 * np.log(np.maximum(depth, 0.1))[..., None],
        ],
        axis=2,
    )
    segments = slic(
        channels,
        n_segments=SEGMENTS,
        compactness=_COMPACTNESS,
        max_num_iter=6,
        channel_axis=-1,
        convert2lab=False,
        start_label=0,
    )
    full = np.repeat(np.repeat(segments, _HALF, axis=0), _HALF, axis=1)
    return np.asarray(full[: colour.shape[0], : colour.shape[1]], dtype=np.int64)


def _texture(colour: np.ndarray) -> np.ndarray:
    """(H/2, W/2, 3) strength and direction of fine texture: the smoothed structure tensor of the brightness."""
    grey = colour.astype(np.float32).mean(axis=2) / 255
    gx = np.zeros_like(grey)
    gy = np.zeros_like(grey)
    gx[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    gy[1:-1] = grey[2:] - grey[:-2]
    tensor = np.stack([gx * gx, gy * gy, gx * gy], axis=2)[::_HALF, ::_HALF]
    xx, yy, xy = np.moveaxis(_smooth(tensor, 4.0), 2, 0)
    energy = xx + yy + np.float32(1e-4)
    weight = np.sqrt(energy) * 4
    return np.stack([weight, weight * (xx - yy) / energy, weight * 2 * xy / energy], axis=2)


def _normals(depth: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """(h, w, 3) unit normals in the camera's frame, of smoothed depth."""
    smooth = ndimage.gaussian_filter(depth, 2.0)
    h, w = depth.shape
    x = (np.arange(w, dtype=np.float32) * _HALF - intrinsics.cx) / intrinsics.fx * smooth
    y = (np.arange(h, dtype=np.float32)[:, None] * _HALF - intrinsics.cy) / intrinsics.fy * smooth
    points = np.stack([x, y, smooth], axis=2)
    along_u, along_v = np.gradient(points, axis=1), np.gradient(points, axis=0)
    normals = np.cross(along_u, along_v)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-9))


def _filled(depth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Depth whose gaps take the nearest known value."""
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(depth[tuple(nearest)])


def _smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(image, (sigma, sigma, 0)))
