"""``<scene>.txt`` of a ScanNet scan: lines ``key = value``; here its axis alignment and the depth camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ditr.errors import Code, DitrError
from ditr.files import read_text
from ditr.geometry.camera import Intrinsics


def scene_text_path(root: Path, scene: str) -> Path:
    """Where the scan's text file lies."""
    return root / "3D" / scene / f"{scene}.txt"


def read_axis_alignment(path: Path) -> np.ndarray:
    """(4, 4) float64, raw world to the world whose axes follow the room."""
    numbers = _numbers(path, "axisAlignment")
    if len(numbers) != 16:
        raise _broken(path, f"axisAlignment has {len(numbers)} numbers, not 16")
    return np.array(numbers).reshape(4, 4)


def read_depth_intrinsics(path: Path, *, width: int, height: int) -> Intrinsics:
    """The depth camera in pixels of a ``width`` x ``height`` image; the file's own size is scaled to it."""
    fx, fy, cx, cy, own_width, own_height = (
        _number(path, key) for key in ("fx_depth", "fy_depth", "mx_depth", "my_depth", "depthWidth", "depthHeight")
    )
    sx, sy = width / own_width, height / own_height
    # Pixel centres are integers: the image's corner is at -0.5, and that is what stays when it is scaled.
    return Intrinsics(
        fx=fx * sx, fy=fy * sy, cx=(cx + 0.5) * sx - 0.5, cy=(cy + 0.5) * sy - 0.5, width=width, height=height
    )


def _number(path: Path, key: str) -> float:
    numbers = _numbers(path, key)
    if len(numbers) != 1 or numbers[0] <= 0:
        raise _broken(path, f"{key} is {numbers}, not one positive number")
    return numbers[0]


def _numbers(path: Path, key: str) -> list[float]:
    try:
        lines = read_text(path).splitlines()
    except FileNotFoundError as error:
        raise _broken(path, "no such file") from error
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == key:
            try:
                numbers = [float(number) for number in value.split()]
            except ValueError as error:
                raise _broken(path, f"{key} is {value.strip()!r}, which are not numbers") from error
            if not np.isfinite(numbers).all():
                raise _broken(path, f"{key} is {value.strip()!r}, which are not all finite")
            return numbers
    raise _broken(path, f"has no line {key!r}")


def _broken(path: Path, what: str) -> DitrError:
    return DitrError(what, code=Code.DATASET, where=str(path), fix="download the scan's text file again")
