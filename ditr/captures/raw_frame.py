"""One RGB-D frame as its capture holds it: names of files, two cameras and a pose; decoded when asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ditr.captures.convention import Convention
from ditr.captures.depth_files import read_depth
from ditr.data.frame_files import read_image
from ditr.errors import Code, DitrError
from ditr.files import read_text
from ditr.geometry.camera import Intrinsics
from ditr.geometry.pose import bent


class Unusable(Exception):
    """The capture itself has nothing usable in this frame, so that it is left out; nothing to repair."""


@dataclass(frozen=True, kw_only=True)
class PoseFile:
    """Sixteen numbers of a 4 x 4 matrix as text."""

    path: Path
    convention: Convention = field(default_factory=Convention)


@dataclass(frozen=True, kw_only=True)
class RawPixels:
    """What a frame's files hold, each image of its own camera."""

    colour: np.ndarray
    """(H, W, 3) uint8."""
    depth_m: np.ndarray
    """(h, w) float64 metres along the optical axis, 0 = nothing measured."""
    pose_c2w: np.ndarray | None
    """(4, 4) float64, camera to the capture's world with +z up, metres; finite."""


@dataclass(frozen=True, kw_only=True)
class RawFrame:
    """Where one frame lies and what its numbers mean."""

    number: str
    """What follows the scene in the frame's id."""
    colour: Path
    depth: Path
    depth_per_m: float = 1000.0
    """What the depth file says of one metre."""
    colour_camera: Intrinsics
    depth_camera: Intrinsics
    """Of the same optical centre and axes as the colour camera: depth is registered to colour."""
    pose: np.ndarray | PoseFile | None
    """(4, 4) as in ``RawPixels``, or where it is read; None of a capture without poses."""
    masks: Path | None = None
    """A label image of superpoints, of the size of the colour image; None where they are made here."""

    def read(self) -> RawPixels:
        """Decodes the files.

        Raises
        ------
        DitrError: a file is missing, damaged or of another size than its camera says.
        Unusable: the pose is not finite or no rigid one, or no pixel has depth.
        """
        pose = read_pose(self.pose) if isinstance(self.pose, PoseFile) else self.pose
        if pose is not None and not np.isfinite(pose).all():
            raise Unusable("the pose is not finite")
        if pose is not None and bent(pose):
            raise Unusable("the pose is not rigid")
        size = (self.depth_camera.height, self.depth_camera.width)
        depth = read_depth(self.depth, per_m=self.depth_per_m, size=size)
        colour, camera = read_image(self.colour, fix="export the frame's colour image again"), self.colour_camera
        if colour.ndim == 3 and colour.shape[2] == 4:
            colour = np.ascontiguousarray(colour[..., :3])
        if colour.shape != (camera.height, camera.width, 3) or colour.dtype != np.uint8:
            what = f"the colour image is {colour.shape} {colour.dtype}, not ({camera.height}, {camera.width}, 3) uint8"
            fix = "export the frames again, all of the size that the intrinsics are for"
            raise DitrError(what, code=Code.DATASET, where=str(self.colour), fix=fix)
        if not (depth > 0).any():
            raise Unusable("no pixel has depth")
        return RawPixels(colour=colour, depth_m=depth, pose_c2w=pose)


def read_pose(file: PoseFile) -> np.ndarray:
    """(4, 4) float64 as ``RawPixels`` has it; of a matrix that is not finite, that matrix."""
    fix = "export the poses again, one 4 x 4 matrix a file"
    try:
        numbers = [float(number) for number in read_text(file.path).split()]
    except FileNotFoundError as error:
        raise DitrError("no such file", code=Code.DATASET, where=str(file.path), fix=fix) from error
    except ValueError as error:
        raise DitrError(f"is no matrix ({error})", code=Code.DATASET, where=str(file.path), fix=fix) from error
    if len(numbers) != 16:
        what = f"{len(numbers)} numbers, not the 16 of a pose"
        raise DitrError(what, code=Code.DATASET, where=str(file.path), fix=fix)
    matrix = np.array(numbers).reshape(4, 4)
    if not np.isfinite(matrix).all():
        return matrix
    try:
        return file.convention.pose_c2w(matrix)
    except np.linalg.LinAlgError as error:
        what = "has no inverse, so it is no pose"
        raise DitrError(what, code=Code.DATASET, where=str(file.path), fix=fix) from error
