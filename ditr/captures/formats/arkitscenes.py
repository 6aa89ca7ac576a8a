"""A video of ARKitScenes, of its ``raw`` or ``3dod`` part (docs/reference/captures.md, ARKitScenes)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ditr.captures.capture import Format, scene_name
from ditr.captures.convention import Convention
from ditr.captures.one_camera import kept_camera, pinhole
from ditr.captures.raw_frame import RawFrame
from ditr.captures.scene import RawScene
from ditr.captures.text_tables import nearest_in_time, read_numbers
from ditr.errors import Code, DitrError
from ditr.geometry.camera import Intrinsics

_CONVENTION = Convention(direction="world_to_camera")
_COLOUR = ("vga_wide", "wide", "lowres_wide")
"""Folders of colour images: the first that is there is taken. All are of one camera, at other sizes."""
_WITHIN_S = 0.009
"""Images come every 0.017 s and poses every 0.1: of each pose the image that is nearest."""
_OF_IMAGE_S = 0.002
"""Files of one image have times that differ by rounding."""


def read(folder: Path) -> RawScene:
    """One frame a pose of the trajectory: the colour image nearest in time, with its depth and its cameras.

    Raises
    ------
    DitrError: a file is broken, or nothing belongs together.
    """
    name = next((name for name in _COLOUR if any((folder / name).glob("*.png"))), _COLOUR[-1])
    colour, depth = _by_time(folder / name, ".png"), _by_time(folder / "lowres_depth", ".png")
    cameras, depth_cameras = (_by_time(folder / f"{kind}_intrinsics", ".pincam") for kind in (name, "lowres_wide"))
    rows = read_numbers(folder / "lowres_wide.traj", columns=7)
    images = nearest_in_time(colour[0], rows[:, 0], within_s=_WITHIN_S)
    frames = []
    for row, image in zip(rows, images.tolist(), strict=True):
        if image < 0:
            continue
        time = colour[0][image]
        files = [_at(lists, time) for lists in (depth, cameras, depth_cameras)]
        if any(file is None for file in files):
            continue
        of_depth, camera, depth_camera = (file for file in files if file is not None)
        frames.append(
            RawFrame(
                number=str(image),
                colour=colour[1][image],
                depth=of_depth,
                colour_camera=_camera(camera),
                depth_camera=_camera(depth_camera),
                pose=_pose(row),
            )
        )
    frames = list({frame.number: frame for frame in frames}.values())
    if not frames:
        what = f"no pose of lowres_wide.traj has an image of {name} with depth and intrinsics at its time"
        raise DitrError(what, code=Code.DATASET, where=str(folder), fix="download the video again")
    return RawScene(name=scene_name(folder), frames=tuple(frames), camera=kept_camera(frames[0].colour_camera))


FORMAT = Format(
    name="arkitscenes",
    description="a video of ARKitScenes",
    marks=("lowres_wide.traj", "lowres_depth", "lowres_wide_intrinsics"),
    read=read,
)

_Files = tuple[np.ndarray, list[Path]]
"""Times in seconds, ascending, and a file of each."""


def _by_time(folder: Path, suffix: str) -> _Files:
    """``<video>_<seconds>.<suffix>``."""
    found = []
    for path in folder.glob(f"*{suffix}"):
        try:
            found.append((float(path.stem.rpartition("_")[2]), path))
        except ValueError as error:
            fix = "take the file away"
            raise DitrError("its name has no time", code=Code.DATASET, where=str(path), fix=fix) from error
    found.sort()
    return np.array([time for time, _ in found]), [path for _, path in found]


def _at(files: _Files, time: float) -> Path | None:
    (index,) = nearest_in_time(files[0], np.array([time]), within_s=_OF_IMAGE_S)
    return None if index < 0 else files[1][index]


def _camera(path: Path) -> Intrinsics:
    rows = read_numbers(path, columns=6)
    if len(rows) != 1:
        fix = "download the video again"
        raise DitrError(f"{len(rows)} rows, not one", code=Code.DATASET, where=str(path), fix=fix)
    width, height, fx, fy, cx, cy = rows[0].tolist()
    return pinhole(fx, fy, cx, cy, width=width, height=height, where=path)


def _pose(row: np.ndarray) -> np.ndarray:
    """Of time, axis times angle, and translation."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(row[1:4]).as_matrix()
    matrix[:3, 3] = row[4:7]
    return _CONVENTION.pose_c2w(matrix)
