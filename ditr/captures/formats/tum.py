"""A sequence of the TUM RGB-D benchmark (docs/reference/captures.md, TUM RGB-D)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ditr.captures.capture import Format, scene_name
from ditr.captures.convention import rotation_of
from ditr.captures.images import image_size
from ditr.captures.one_camera import kept_camera, pinhole
from ditr.captures.raw_frame import RawFrame
from ditr.captures.scene import RawScene
from ditr.captures.text_tables import nearest_in_time, read_lines, read_numbers
from ditr.errors import Code, DitrError
from ditr.geometry.camera import Intrinsics

_PER_M = 5000.0
_WITHIN_S = 0.02
"""What belongs together is at most so far apart; images come every 0.033 s."""
_FREIBURG = {
    "1": (517.3, 516.5, 318.6, 255.3),
    "2": (520.9, 521.0, 325.1, 249.7),
    "3": (535.4, 539.2, 320.1, 247.6),
}
"""fx, fy, cx, cy of the colour camera by the number of the room, for 640 x 480."""
_CAMERA = "camera.txt"


def read(folder: Path) -> RawScene:
    """Colour images with a depth image and, where there is a trajectory, a pose at the same time.

    Raises
    ------
    DitrError: a list is broken, nothing belongs together, or nobody says the camera.
    """
    colour, depth = _images(folder / "rgb.txt"), _images(folder / "depth.txt")
    times = np.array([time for time, _ in colour])
    of_depth = nearest_in_time(np.array([time for time, _ in depth]), times, within_s=_WITHIN_S)
    poses = _poses(folder / "groundtruth.txt", times)
    together = [index for index in range(len(colour)) if of_depth[index] >= 0 and (poses is None or index in poses)]
    if not together:
        what = f"no image of rgb.txt has depth and a pose within {_WITHIN_S} s"
        raise DitrError(what, code=Code.DATASET, where=str(folder), fix="check that all lists are of this sequence")
    camera = _camera(folder, image=folder / colour[together[0]][1])
    frames = (
        RawFrame(
            number=str(index),
            colour=folder / colour[index][1],
            depth=folder / depth[of_depth[index]][1],
            depth_per_m=_PER_M,
            colour_camera=camera,
            depth_camera=camera,
            pose=None if poses is None else poses[index],
        )
        for index in together
    )
    return RawScene(name=scene_name(folder), frames=tuple(frames), camera=kept_camera(camera))


FORMAT = Format(
    name="tum", description="a sequence of the TUM RGB-D benchmark", marks=("rgb.txt", "depth.txt"), read=read
)


def _images(path: Path) -> list[tuple[float, str]]:
    """Time in seconds and file name of every line, by time."""
    try:
        return sorted((float(time), name) for time, name in read_lines(path))
    except ValueError as error:
        what = f"a line is not a time and a file name ({error})"
        raise DitrError(what, code=Code.DATASET, where=str(path), fix="download the sequence again") from error


def _poses(path: Path, times: np.ndarray) -> dict[int, np.ndarray] | None:
    """(4, 4) camera to world of each of the times (N,) that has one; None where there is no trajectory."""
    if not path.is_file():
        return None
    rows = read_numbers(path, columns=8)
    found = nearest_in_time(rows[:, 0], times, within_s=_WITHIN_S)
    return {index: _pose(rows[row]) for index, row in enumerate(found.tolist()) if row >= 0}


def _pose(row: np.ndarray) -> np.ndarray:
    """Of time, x, y, z, and a quaternion whose real part comes last."""
    pose = np.eye(4)
    pose[:3, 3] = row[1:4]
    pose[:3, :3] = rotation_of(row[4:8])
    return pose


def _camera(folder: Path, *, image: Path) -> Intrinsics:
    """The sequence's own file goes before what its name says."""
    width, height = image_size(image)
    own = folder / _CAMERA
    room = re.search(r"freiburg([123])", folder.resolve().name)
    said = f"write fx fy cx cy in pixels into {own}, or give the folder back its name"
    if own.is_file():
        rows = read_numbers(own, columns=4, fix=said)
        if len(rows) != 1:
            raise DitrError(f"{len(rows)} rows, not one", code=Code.DATASET, where=str(own), fix=said)
        fx, fy, cx, cy = rows[0].tolist()
    elif room:
        fx, fy, cx, cy = _FREIBURG[room[1]]
    else:
        raise DitrError(
            "nothing says the camera: the folder's name has no freiburg1, freiburg2 or freiburg3 in it",
            code=Code.DATASET,
            where=str(folder),
            fix=said,
        )
    return pinhole(fx, fy, cx, cy, width=width, height=height, where=own)
