"""Whether a matrix moves a camera without bending it."""

from __future__ import annotations

import numpy as np

MAX_ROTATION_ERROR = 1e-3
"""Largest entry of R R' - 1; poses are written with six decimals and more."""


def bent(pose: np.ndarray) -> str:
    """What keeps a finite (4, 4) matrix from being a rotation and a translation; empty if nothing does."""
    rotation = pose[:3, :3]
    off = np.abs(rotation @ rotation.T - np.eye(3)).max()
    determinant = np.linalg.det(rotation)
    if off > MAX_ROTATION_ERROR or determinant < 0 or not np.array_equal(pose[3], [0, 0, 0, 1]):
        return f"R R' differs from 1 by {off:.2g}, det {determinant:.2g}, last row {pose[3].tolist()}"
    return ""
