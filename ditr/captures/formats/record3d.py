"""An export of the Record3D app: a .r3d, unzipped, or "EXR + RGB" (docs/reference/captures.md, Record3D)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ditr.captures.capture import Format, scene_name
from ditr.captures.convention import Convention, rotation_of
from ditr.captures.depth_files import read_depth
from ditr.captures.images import by_number, image_size, require_images
from ditr.captures.one_camera import kept_camera, pinhole, resized
from ditr.captures.raw_frame import RawFrame
from ditr.captures.scene import RawScene
from ditr.errors import Code, DitrError
from ditr.files import read_json
from ditr.geometry.camera import Intrinsics

_CONVENTION = Convention(axes="opengl", up="y")
_Numbers = tuple[float, ...]


class _Metadata(BaseModel):
    """What is read of it; it holds more."""

    model_config = ConfigDict(extra="ignore")

    w: int
    h: int
    dw: int | None = None
    dh: int | None = None
    K: Annotated[_Numbers, Field(min_length=9, max_length=9)]
    """Column after column, for images of w x h."""
    poses: list[Annotated[_Numbers, Field(min_length=7, max_length=7)]]
    """x, y, z, w of a quaternion, then a position; camera to world in ARKit's axes."""
    perFrameIntrinsicCoeffs: list[Annotated[_Numbers, Field(min_length=4, max_length=4)]] = []
    """fx, fy, cx, cy of each frame, as the focus moves."""


def read(folder: Path) -> RawScene:
    """Frames by the numbers of their files, which are the rows of the metadata.

    Raises
    ------
    DitrError: the metadata cannot be read, or a frame has no depth or no pose.
    """
    exr = (folder / "metadata.json").is_file()
    path = folder / ("metadata.json" if exr else "metadata")
    found = _metadata(path)
    images, depths, ending = ("rgb", "depth", ".exr") if exr else ("rgbd", "rgbd", ".depth")
    colour, depth = by_number(folder / images, "*.jpg"), by_number(folder / depths, f"*{ending}")
    lacking = [file for number, file in colour.items() if number not in depth or number >= len(found.poses)]
    require_images(folder, colour=tuple(colour.values()), lacking=lacking, fix="export the capture again")
    first = next(iter(colour))
    size, depth_size = image_size(colour[first]), _depth_size(found, depth[first], path)
    kept = kept_camera(_camera(found, first, size, path=path))
    frames = []
    for number, image in colour.items():
        camera = _camera(found, number, size, path=path)
        of_depth = resized(camera, width=depth_size[0], height=depth_size[1])
        frames.append(
            RawFrame(
                number=str(number),
                colour=image,
                depth=depth[number],
                depth_per_m=1.0,
                colour_camera=camera,
                depth_camera=of_depth,
                pose=_pose(found.poses[number]),
            )
        )
    return RawScene(name=scene_name(folder), frames=tuple(frames), camera=kept)


FORMAT = Format(
    name="record3d",
    description="an export of Record3D: an unzipped .r3d, or EXR + RGB",
    marks=("metadata*", "rgb*/*.jpg"),
    read=read,
)


def _metadata(path: Path) -> _Metadata:
    try:
        return _Metadata.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError) as error:
        what = f"cannot be read ({error})"
    raise DitrError(what, code=Code.DATASET, where=str(path), fix="export the capture again")


def _camera(found: _Metadata, number: int, size: tuple[int, int], *, path: Path) -> Intrinsics:
    """Of the frame's image, of ``size`` width and height: what the metadata says is of w x h."""
    own = found.perFrameIntrinsicCoeffs
    fx, fy, cx, cy = own[number] if number < len(own) else (found.K[index] for index in (0, 4, 6, 7))
    camera = pinhole(fx, fy, cx, cy, width=found.w, height=found.h, where=path)
    return resized(camera, width=size[0], height=size[1])


def _depth_size(found: _Metadata, file: Path, path: Path) -> tuple[int, int]:
    """Width and height."""
    if found.dw is not None and found.dh is not None:
        return found.dw, found.dh
    if file.suffix == ".depth":
        fix = "export the capture again"
        raise DitrError("has no dw and dh, the size of the depth", code=Code.DATASET, where=str(path), fix=fix)
    height, width = read_depth(file, per_m=1.0).shape
    return width, height


def _pose(row: _Numbers) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = rotation_of(row[:4])
    pose[:3, 3] = row[4:]
    return _CONVENTION.pose_c2w(pose)
