"""The mistakes that are made about poses and depth when a capture is read, and what undoes each.

How the world is turned makes no difference to whether frames agree in it, so that a mistake about which axis is up is
none of these.
"""

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
    fix: str
    """What to write where, for an import that can be told of it; a sentence."""
    files_fix: str
    """What to change in raw files whose format leaves no choice, such as ScanNet's; a sentence."""
    pose: Callable[[np.ndarray], np.ndarray] | None = None
    """The right pose (4, 4) of the stored one; None where poses are right."""
    depth_factor: float = 1.0
    """The right depth by the stored one, in the unit of positions."""
    unit_per_m: float = 1.0
    """Of positions."""
    focal_factor: float = 1.0
    """The right focal length by the stored one."""

    def corrected(self, pose: np.ndarray) -> np.ndarray:
        """(4, 4), camera to world."""
        return pose if self.pose is None else self.pose(pose)

    def of_world(self, xyz: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Where (N, 3) points of the world in metres are without the mistake; of a frame with this stored pose."""
        camera = self.depth_factor * (xyz - pose[:3, 3]) @ pose[:3, :3] / (self.focal_factor, self.focal_factor, 1)
        right = self.corrected(pose)
        return np.asarray((camera @ right[:3, :3].T + right[:3, 3]) / self.unit_per_m)


def _inverted(pose: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.inv(pose))


def _inverted_opengl(pose: np.ndarray) -> np.ndarray:
    return _inverted(pose) @ _FLIP


def _after_turn(undo: np.ndarray, pose: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda stored: pose(undo.T @ stored)


def _transposed(pose: np.ndarray) -> np.ndarray:
    return _with_rotation(pose, pose[:3, :3].T)


def _quaternion_rolled(pose: np.ndarray, *, by: int) -> np.ndarray:
    quaternion = np.roll(Rotation.from_matrix(pose[:3, :3]).as_quat(), by)
    return _with_rotation(pose, Rotation.from_quat(quaternion).as_matrix())


def _at_origin(pose: np.ndarray) -> np.ndarray:
    result = pose.copy()
    result[:3, 3] = 0
    return result


def _with_rotation(pose: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    result = pose.copy()
    result[:3, :3] = rotation
    return result


RIGHT = Mistake(cause="nothing is wrong", fix="", files_fix="")
NO_POSITION = Mistake(cause="positions mean nothing", fix="", files_fix="", pose=_at_origin)

_AGAIN = "then the same import"
_WORLD_TO_CAMERA = "poses go the other way than was said (world to camera, or camera to world): invert them"
_OPENGL = "the camera's axes are the others (OpenGL's have y up, z backward, OpenCV's y down, z forward): flip y and z"
_DIRECTION_FIX = "write `poses: world_to_camera` in capture.yaml of rgbd, or take it away where it stands there"
_AXES_FIX = "write `axes: opengl` in capture.yaml of rgbd, or take it away where it stands there"
_ELSEWHERE = "of another format write the poses as docs/data_format.md (Import) says that they are read"

MISTAKES = (
    Mistake(
        cause=_OPENGL,
        fix=f"{_AXES_FIX}, {_AGAIN}; {_ELSEWHERE}",
        files_fix=f"multiply the second and the third column of the pose files by -1, {_AGAIN}",
        pose=lambda pose: pose @ _FLIP,
    ),
    *(
        Mistake(
            cause=_WORLD_TO_CAMERA,
            fix=f"{_DIRECTION_FIX}, {_AGAIN}; {_ELSEWHERE}",
            files_fix=f"write the inverse of each matrix into the pose files, {_AGAIN}",
            pose=_after_turn(turn, _inverted),
        )
        for turn in _TURNS
    ),
    *(
        Mistake(
            cause=f"{_WORLD_TO_CAMERA}; and {_OPENGL}",
            fix=f"{_DIRECTION_FIX}, and {_AXES_FIX}, {_AGAIN}; {_ELSEWHERE}",
            files_fix="write the inverse of each matrix into the pose files, its second and third column times -1, "
            f"{_AGAIN}",
            pose=_after_turn(turn, _inverted_opengl),
        )
        for turn in _TURNS
    ),
    Mistake(
        cause="rotations are transposed, rows for columns: transpose them",
        fix=f"write the pose files with rotations transposed, {_AGAIN}",
        files_fix=f"write the pose files with rotations transposed, {_AGAIN}",
        pose=_transposed,
    ),
    Mistake(
        cause="quaternions have their real part first, and it was taken for the last: w x y z is x y z w",
        fix=f"write the real part last in the trajectory, {_AGAIN}",
        files_fix=f"take the real part for the first where the pose files are made of quaternions, {_AGAIN}",
        pose=lambda pose: _quaternion_rolled(pose, by=-1),
    ),
    Mistake(
        cause="quaternions have their real part last, and it was taken for the first: x y z w is w x y z",
        fix=f"write the real part first where rotations are made of quaternions, {_AGAIN}",
        files_fix=f"take the real part for the last where the pose files are made of quaternions, {_AGAIN}",
        pose=lambda pose: _quaternion_rolled(pose, by=1),
    ),
    *(
        Mistake(
            cause=f"depth is {times:g} times too {word} for the poses: depth_per_m is {times:g} times too {other_word}",
            fix=f"{way} depth_per_m in capture.yaml of rgbd by {times:g} ({example}), {_AGAIN}; of another format "
            f"{other} the values of the depth images by it",
            files_fix=f"{other} the values of the depth images by {times:g}, {_AGAIN}",
            depth_factor=factor,
        )
        for times in (2, 5, 6.5535, 10)
        for word, factor, other_word, way, other, example in (
            ("large", 1 / times, "small", "multiply", "divide", f"1000 becomes {1000 * times:g}"),
            ("small", times, "large", "divide", "multiply", f"{1000 * times:g} becomes 1000"),
        )
    ),
    Mistake(
        cause="positions are in millimetres, and were taken for metres",
        fix=f"divide the positions of the poses by 1000, {_AGAIN}",
        files_fix=f"divide the first three numbers of the pose files' fourth column by 1000, {_AGAIN}",
        depth_factor=1000,
        unit_per_m=1000,
    ),
    *(
        Mistake(
            cause=f"the focal length is {factor:.3g} times too {word}: fx and fy are of images of another size",
            fix=f"{way} fx and fy by {factor:.3g}, and look at cx and cy, in capture.yaml of rgbd, camera.txt of "
            f"tum or intrinsic.txt of esam, {_AGAIN}",
            files_fix="give --intrinsics scene; and where that is given, write fx and fy of the depth camera, not the "
            "colour camera, as fx_depth and fy_depth into the scan's .txt",
            focal_factor=focal,
        )
        for factor in (4 / 3, 1.5, 2, 3)
        for word, focal, way in (("large", 1 / factor, "divide"), ("small", factor, "multiply"))
    ),
)
