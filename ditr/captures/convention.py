"""How a capture writes its poses, and what makes of them camera to world, in OpenCV's axes, with +z up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

Direction = Literal["camera_to_world", "world_to_camera"]
Axes = Literal["opencv", "opengl"]
Up = Literal["z", "y", "-y"]

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenGL's camera looks along -z with y up, OpenCV's along +z with y down; its own inverse."""
_Z_UP: dict[Up, tuple[tuple[int, int, int], ...]] = {
    "z": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "y": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "-y": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
}
"""The rotation that brings the axis that points up to +z."""


@dataclass(frozen=True, kw_only=True)
class Convention:
    """The default is what is stored: nothing is to be done."""

    direction: Direction = "camera_to_world"
    axes: Axes = "opencv"
    """Of the camera."""
    up: Up = "z"
    """Which axis of the world points up; what models learned is turned about +z alone."""

    def pose_c2w(self, matrix: np.ndarray) -> np.ndarray:
        """(4, 4) float64, camera to world with +z up, of a pose as the capture writes it."""
        pose = np.linalg.inv(matrix) if self.direction == "world_to_camera" else np.asarray(matrix, dtype=np.float64)
        if self.axes == "opengl":
            pose = pose @ OPENGL_TO_OPENCV
        turn = np.eye(4)
        turn[:3, :3] = _Z_UP[self.up]
        return np.asarray(turn @ pose)


def rotation_of(quaternion: np.ndarray | Sequence[float]) -> np.ndarray:
    """(3, 3) of x, y, z, w; NaN, which is no pose that is used, of what is no rotation."""
    numbers = np.asarray(quaternion, dtype=np.float64)
    if not np.isfinite(numbers).all() or not numbers.any():
        return np.full((3, 3), np.nan)
    return np.asarray(Rotation.from_quat(numbers).as_matrix())


def level_pose() -> np.ndarray:
    """(4, 4) of a camera that stands level at the origin: what a frame without a pose is given, so that +z is up."""
    return Convention(up="-y").pose_c2w(np.eye(4))
