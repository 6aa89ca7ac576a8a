"""The mistakes that are made about poses and depth when a capture is read, and what undoes each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenGL's camera axes to OpenCV's, and back."""
_TURNS = tuple(
    np.array([[1, 0, 0, 0], [0, *rows[0], 0], [0, *rows[1], 0], [0, 0, 0, 1]], dtype=np.float64)
    for rows in (((1, 0), (0, 1)), ((0, -1), (1, 0)), ((0, 1), (-1, 0)))
)
"""What turns an axis of the world up, as a reader may have done: nothing, y, -y."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One of them, made alike with every frame."""

    cause: str
    """What is likely to have happened, a sentence's end."""
    pose: Callable[[np.ndarray], np.ndarray] | None = None
    """The right pose (4, 4) of the stored one; None where poses are right."""
    depth_factor: float = 1.0
    """The right depth by the stored one."""

    def corrected(self, pose: np.ndarray) -> np.ndarray:
        """(4, 4), camera to world."""
        return pose if self.pose is None else self.pose(pose)


def _inverted(pose: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.inv(pose))


def _after_turn(undo: np.ndarray, pose: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda stored: pose(undo.T @ stored)


def _transposed(pose: np.ndarray) -> np.ndarray:
    return _with_rotation(pose, pose[:3, :3].T)


def _quaternion_rolled(pose: np.ndarray, *, by: int) -> np.ndarray:
    quaternion = np.roll(Rotation.from_matrix(pose[:3, :3]).as_quat(), by)
    return _with_rotation(pose, Rotation.from_quat(quaternion).as_matrix())


def _with_rotation(pose: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    result = pose.copy()
    result[:3, :3] = rotation
    return result


RIGHT = Mistake(cause="nothing is wrong")

_WORLD_TO_CAMERA = "poses are world to camera, and were taken for camera to world: invert them"
_OPENGL = "the camera's axes are OpenGL's (y up, z backward), and were taken for OpenCV's: flip y and z"

MISTAKES = (
    Mistake(cause=_OPENGL, pose=lambda pose: pose @ _FLIP),
    *(Mistake(cause=_WORLD_TO_CAMERA, pose=_after_turn(turn, _inverted)) for turn in _TURNS),
    *(
        Mistake(cause=f"{_WORLD_TO_CAMERA}; and {_OPENGL}", pose=_after_turn(turn, pose))
        for turn in _TURNS
        for pose in (lambda pose: _inverted(pose) @ _FLIP, lambda pose: _FLIP @ _inverted(pose))
    ),
    Mistake(cause="rotations are transposed, rows for columns: transpose them", pose=_transposed),
    Mistake(
        cause="quaternions have their real part first, and it was taken for the last: w x y z is x y z w",
        pose=lambda pose: _quaternion_rolled(pose, by=-1),
    ),
    Mistake(
        cause="quaternions have their real part last, and it was taken for the first: x y z w is w x y z",
        pose=lambda pose: _quaternion_rolled(pose, by=1),
    ),
    *(
        Mistake(cause=f"depth is {times:g} times too {word} for the poses: {why}", depth_factor=factor)
        for times, why in (
            (5, "images of 5000 a metre were read as millimetres, or the reverse"),
            (6.5535, "images of 6553.5 a metre were read as millimetres, or the reverse"),
            (10, "images of 10,000 a metre were read as millimetres, or the reverse"),
            (1000, "one of the two is in millimetres, the other in metres"),
        )
        for word, factor in (("large", 1 / times), ("small", times))
    ),
)
