"""The folder that ESAM's stream demo reads (docs/reference/captures.md, ESAM's stream)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ditr.captures.capture import Format, scene_name
from ditr.captures.images import by_number, image_size, require_images
from ditr.captures.one_camera import kept_camera, pinhole, resized
from ditr.captures.raw_frame import PoseFile, RawFrame
from ditr.captures.scene import RawScene
from ditr.captures.text_tables import read_lines
from ditr.errors import Code, DitrError
from ditr.geometry.camera import Intrinsics


def read(folder: Path) -> RawScene:
    """``color``, ``depth`` and ``pose`` by the numbers of the files, ``intrinsic.txt`` for all.

    Raises
    ------
    DitrError: an image has no depth or no pose, or the intrinsics are no matrix.
    """
    colour, depth = by_number(folder / "color"), by_number(folder / "depth", "*.png")
    poses = by_number(folder / "pose", "*.txt")
    lacking = [path for number, path in colour.items() if number not in depth or number not in poses]
    fix = "export them, or take the image away"
    require_images(folder, colour=tuple(colour.values()), lacking=lacking, fix=fix)
    first = next(iter(colour))
    camera = _camera(folder / "intrinsic.txt", depth=depth[first])
    width, height = image_size(colour[first])
    of_colour = resized(camera, width=width, height=height)
    frames = (
        RawFrame(
            number=str(number),
            colour=path,
            depth=depth[number],
            colour_camera=of_colour,
            depth_camera=camera,
            pose=PoseFile(path=poses[number]),
        )
        for number, path in colour.items()
    )
    return RawScene(name=scene_name(folder), frames=tuple(frames), camera=kept_camera(of_colour))


FORMAT = Format(
    name="esam",
    description="the folder of ESAM's stream demo",
    marks=("color", "depth", "pose", "intrinsic.txt"),
    read=read,
)


def _camera(path: Path, *, depth: Path) -> Intrinsics:
    """Of the depth images: 3 x 3 or 4 x 4 numbers."""
    width, height = image_size(depth)
    try:
        matrix = np.array(read_lines(path), dtype=np.float64)
        if matrix.shape not in ((3, 3), (4, 4)):
            raise ValueError(f"it is of shape {matrix.shape}")
    except ValueError as error:
        what = f"is no 3x3 or 4x4 matrix ({error})"
        fix = "write the matrix K of the depth camera, in pixels of the depth images"
        raise DitrError(what, code=Code.DATASET, where=str(path), fix=fix) from error
    fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return pinhole(fx, fy, cx, cy, width=width, height=height, where=path)
