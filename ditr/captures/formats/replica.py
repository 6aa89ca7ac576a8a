"""A rendered sequence of Replica as NICE-SLAM gives it away (docs/reference/captures.md, Replica)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ditr.captures.capture import Format, scene_name
from ditr.captures.images import by_number, image_size
from ditr.captures.one_camera import kept_camera, pinhole
from ditr.captures.raw_frame import RawFrame
from ditr.captures.scene import RawScene
from ditr.captures.text_tables import read_numbers
from ditr.errors import Code, DitrError
from ditr.files import read_json
from ditr.geometry.camera import Intrinsics

_FIX = "download the sequence again"
_PUBLISHED = {"w": 1200, "h": 680, "fx": 600.0, "fy": 600.0, "cx": 599.5, "cy": 339.5, "scale": 6553.5}


def read(folder: Path) -> RawScene:
    """``results/frame*.jpg`` and ``results/depth*.png`` by their number, which is the row of ``traj.txt``.

    Raises
    ------
    DitrError: the trajectory is broken or too short, a depth image is missing, or the camera is of another size.
    """
    files = sorted((folder / "results").glob("*"))
    colour = {number: path for number, path in by_number(folder / "results").items() if path.stem.startswith("frame")}
    depth = {int(path.stem.removeprefix("depth")): path for path in files if path.match("depth[0-9]*.png")}
    poses = read_numbers(folder / "traj.txt", columns=16).reshape(-1, 4, 4)
    if lacking := [number for number in colour if number not in depth or number >= len(poses)]:
        what = (
            f"{len(lacking)} of {len(colour)} images have no depth or no pose, the first is {colour[lacking[0]].name}"
        )
        raise DitrError(what, code=Code.DATASET, where=str(folder), fix=_FIX)
    camera, per_m = _camera(folder)
    if colour and (size := image_size(next(iter(colour.values())))) != (camera.width, camera.height):
        what = f"images of {size[0]}x{size[1]}, and a camera of {camera.width}x{camera.height}"
        fix = "put the sequence's own cam_params.json beside it or into its parent folder"
        raise DitrError(what, code=Code.DATASET, where=str(folder), fix=fix)
    frames = (
        RawFrame(
            number=str(number),
            colour=path,
            depth=depth[number],
            depth_per_m=per_m,
            colour_camera=camera,
            depth_camera=camera,
            pose=poses[number],
        )
        for number, path in colour.items()
    )
    return RawScene(name=scene_name(folder), frames=tuple(frames), camera=kept_camera(camera))


FORMAT = Format(
    name="replica",
    description="a rendered sequence of Replica, as NICE-SLAM gives it away",
    marks=("traj.txt", "results/frame*", "results/depth*"),
    read=read,
)


def _camera(folder: Path) -> tuple[Intrinsics, float]:
    """And what the depth images say of a metre: of ``cam_params.json``, here or above, else as published."""
    found: dict[str, Any] = _PUBLISHED
    path = next(
        (p for p in (folder / "cam_params.json", folder.resolve().parent / "cam_params.json") if p.is_file()), None
    )
    try:
        if path is not None:
            found = read_json(path)["camera"]
        fx, fy, cx, cy, per_m = (float(found[key]) for key in ("fx", "fy", "cx", "cy", "scale"))
        width, height = float(found["w"]), float(found["h"])
        if not 0 < per_m < math.inf:
            raise ValueError(f"scale {per_m}")
    except (KeyError, TypeError, ValueError) as error:
        what = f"has no camera with w, h, fx, fy, cx, cy and scale ({error})"
        raise DitrError(what, code=Code.DATASET, where=str(path), fix=_FIX) from error
    return pinhole(fx, fy, cx, cy, width=width, height=height, where=path or folder), per_m
