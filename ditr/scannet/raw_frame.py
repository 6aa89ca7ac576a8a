"""One exported RGB-D frame of a scan: ``2D/<scene>/{color,depth,pose}`` (docs/reference/esam.md, Raw data)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ditr.data.scannet_sv import read_image
from ditr.errors import Code, DitrError


class Unusable(Exception):
    """The scan itself has nothing usable in this frame, so that it is left out; nothing to repair."""


@dataclass(frozen=True, kw_only=True)
class RawFrame:
    """Colour and depth of the same size, pixel by pixel."""

    colour: np.ndarray
    """(H, W, 3) uint8."""
    depth_mm: np.ndarray
    """(H, W) unsigned whole numbers, 0 = nothing measured."""
    pose_c2w: np.ndarray
    """(4, 4) float64, camera to raw world, metres; finite."""


def read_raw_frame(root: Path, scene: str, number: str, *, height: int, width: int) -> RawFrame:
    """``DitrError`` where a file is missing, damaged or of another size; ``Unusable`` without a pose or any depth."""
    folder = root / "2D" / scene
    pose = _read_pose(folder / "pose" / f"{number}.txt")
    depth_path, colour_path = folder / "depth" / f"{number}.png", folder / "color" / f"{number}.jpg"
    depth, colour = read_image(depth_path), read_image(colour_path)
    if depth.shape != (height, width) or depth.dtype.kind not in "ui":
        raise _broken(depth_path, f"the depth image is {depth.shape} {depth.dtype}, not ({height}, {width}) 16 bit")
    if colour.shape != (height, width, 3):
        raise _broken(colour_path, f"the colour image is {colour.shape}, not ({height}, {width}, 3) as the depth image")
    if not (depth > 0).any():
        raise Unusable("no pixel has depth")
    return RawFrame(colour=colour, depth_mm=depth, pose_c2w=pose)


def _read_pose(path: Path) -> np.ndarray:
    try:
        numbers = [float(number) for number in path.read_text().split()]
    except FileNotFoundError as error:
        raise _broken(path, "no such file") from error
    except ValueError as error:
        raise _broken(path, f"is no matrix ({error})") from error
    if len(numbers) != 16:
        raise _broken(path, f"{len(numbers)} numbers, not the 16 of a pose")
    pose = np.array(numbers).reshape(4, 4)
    if not np.isfinite(pose).all():
        raise Unusable("the pose is not finite")
    return pose


def _broken(path: Path, what: str) -> DitrError:
    fix = "export the scan's frames again, at stride 20 and 640x480, or download the prepared 2D folder again"
    return DitrError(what, code=Code.DATASET, where=str(path), fix=fix)
