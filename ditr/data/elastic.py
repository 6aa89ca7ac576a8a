"""Elastic distortion: the points move with a smooth random field (docs/reference/esam.md, Pipeline 9)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter1d


def elastic_shift(xyz: np.ndarray, *, granularity: float, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Displacement (N, 3) float64 of N points, in the unit of ``xyz`` (voxels).

    Gaussian noise on a grid around the origin, which holds all points, smoothed and read by trilinear interpolation.

    Parameters
    ----------
    xyz: (N, 3) in voxels; the grid spans the largest absolute coordinate of each axis.
    granularity: half the spacing of the grid's nodes, in voxels, 1 or more.
    magnitude: standard deviation of the noise before the smoothing, in voxels.
    """
    xyz = np.ascontiguousarray(xyz.T)  # (3, N): numpy is three times as fast along long rows
    size = (np.floor(np.abs(xyz).max(axis=1)) // granularity).astype(np.int64) + 3
    noise = rng.standard_normal((3, *size), dtype=np.float32)
    # The b nodes of an axis lie at linspace(-(b - 1) g, (b - 1) g, b): x falls at node x / (2 g) + (b - 1) / 2.
    nodes = xyz / (2 * granularity) + (size[:, None] - 1) / 2
    shift = _trilinear(np.stack([_smooth(axis) for axis in noise]), nodes)
    return np.ascontiguousarray((shift * magnitude).T)


def _trilinear(fields: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """(F, N) float64 values of (F, X, Y, Z) fields at (3, N) places between their nodes.

    In the order of scipy's ``map_coordinates``, which takes three times as long.
    """
    _, *size = fields.shape
    first = np.floor(nodes)
    low = 1.0 - (nodes - first)
    weights = np.stack([low, 1.0 - low])  # (2, 3, N)
    index = np.ravel_multi_index(tuple(first.astype(np.int64)), tuple(size))
    values = fields.reshape(len(fields), -1).astype(np.float64)
    found = np.zeros((len(fields), nodes.shape[1]))
    part = np.empty_like(found)
    for corner in np.ndindex(2, 2, 2):
        step = int(np.ravel_multi_index(corner, tuple(size)))
        values.take(index + step, axis=1, out=part, mode="clip")  # which needs no copy of part
        for axis, side in enumerate(corner):
            part *= weights[side, axis]
        found += part
    return found


def _smooth(field: np.ndarray) -> np.ndarray:
    """Two passes of a box of width 3 along x, y and z, with zeros beyond the border."""
    for axis in (0, 1, 2, 0, 1, 2):
        field = uniform_filter1d(field, size=3, axis=axis, mode="constant")
    return field
