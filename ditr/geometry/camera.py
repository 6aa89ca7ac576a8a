"""Pixels <-> points of a pinhole camera. Pixel centres are integers; the camera looks along +z, x right, y down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """Pinhole intrinsics in pixels of an image of ``width`` x ``height``."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


SCANNET_SV_INTRINSICS = Intrinsics(fx=577.870605, fy=577.870605, cx=319.5, cy=239.5, width=640, height=480)
"""The average intrinsics that ESAM's preparation uses for every ScanNet scene (docs/reference/esam.md, Raw data)."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Where N points fall in the image."""

    uv: np.ndarray
    """(N, 2) float64 pixels, u to the right, v down; NaN where depth_ok is false."""
    depth_ok: np.ndarray
    """(N,) bool: in front of the camera."""
    boundary_ok: np.ndarray
    """(N,) bool: inside the image, i.e. -0.5 <= u < width - 0.5, and v alike; false where depth_ok is false."""

    @property
    def valid(self) -> np.ndarray:
        """(N,) bool: the point reads a 2D feature."""
        return np.asarray(self.depth_ok & self.boundary_ok)


def project(xyz: np.ndarray, *, pose_c2w: np.ndarray, intrinsics: Intrinsics) -> Projection:
    """Pixels of (N, 3) world points in metres seen from ``pose_c2w`` (4, 4)."""
    world_to_camera = np.linalg.inv(pose_c2w.astype(np.float64))
    camera = xyz.astype(np.float64) @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    depth_ok = camera[:, 2] > 1e-6
    z = np.where(depth_ok, camera[:, 2], np.nan)
    u = intrinsics.fx * camera[:, 0] / z + intrinsics.cx
    v = intrinsics.fy * camera[:, 1] / z + intrinsics.cy
    with np.errstate(invalid="ignore"):
        inside = (u >= -0.5) & (u < intrinsics.width - 0.5) & (v >= -0.5) & (v < intrinsics.height - 0.5)
    return Projection(uv=np.stack([u, v], axis=1), depth_ok=depth_ok, boundary_ok=inside)


def backproject(uv: np.ndarray, depth_m: np.ndarray, *, pose_c2w: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """World points (N, 3) float64 of pixels ``uv`` (N, 2) at z-depth ``depth_m`` (N,); the inverse of ``project``."""
    x = (uv[:, 0] - intrinsics.cx) / intrinsics.fx * depth_m
    y = (uv[:, 1] - intrinsics.cy) / intrinsics.fy * depth_m
    camera = np.stack([x, y, depth_m], axis=1).astype(np.float64)
    return np.asarray(camera @ pose_c2w[:3, :3].T + pose_c2w[:3, 3])
