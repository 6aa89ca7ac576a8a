"""Elastic distortion: the points move with a smooth random field (docs/reference/esam.md, Pipeline 9)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter1d


def elastic_shift(xyz: np.ndarray, *, granularity: float, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Displacement (N, 3) float64 of N points, in the unit of ``xyz`` (voxels).

    Gaussian noise on a grid around the origin, smoothed, read by trilinear interpolation and zero outside the grid.

    Parameters
    ----------
    xyz: (N, 3) in voxels; the grid spans the largest absolute coordinate of each axis.
    granularity: half the spacing of the grid's nodes, in voxels.
    magnitude: standard deviation of the noise before the smoothing, in voxels.
    """
    size = (np.floor(np.abs(xyz).max(axis=0)) // granularity).astype(np.int64) + 3
    noise = rng.standard_normal((3, *size), dtype=np.float32)
    # The b nodes of an axis lie at linspace(-(b - 1) g, (b - 1) g, b): x falls at node x / (2 g) + (b - 1) / 2.
    nodes = (xyz / (2 * granularity) + (size - 1) / 2).T
    shift = [map_coordinates(_smooth(axis), nodes, order=1, mode="constant", output=np.float64) for axis in noise]
    return np.stack(shift, axis=1) * magnitude


def _smooth(field: np.ndarray) -> np.ndarray:
    """Two passes of a box of width 3 along x, y and z, with zeros beyond the border."""
    for axis in (0, 1, 2, 0, 1, 2):
        field = uniform_filter1d(field, size=3, axis=axis, mode="constant")
    return field
