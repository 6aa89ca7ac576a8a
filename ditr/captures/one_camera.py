"""Colour and depth of two sizes brought to one camera, so that every point is a pixel of the image that is kept.

All cameras look the same way from the same place, so that a pixel of one is a place in the image of another by a scale
and a shift of each axis. Pixel centres are whole numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ditr.errors import Code, DitrError
from ditr.geometry.camera import Intrinsics
from ditr.spec.entries import IntrinsicsEntry

LONG_SIDE = 640
"""Images that are longer are made so long; the pixels of ScanNet's are as many."""
_EDGE_RATIO = 1.05
"""Neighbouring depths that differ by more are of two surfaces, or of one that is seen at a grazing angle."""
_EXACT_PX = 1e-9


def pinhole(fx: float, fy: float, cx: float, cy: float, *, width: float, height: float, where: Path) -> Intrinsics:
    """The camera that a file of a capture names.

    Raises
    ------
    DitrError: the numbers are none of a camera.
    """
    try:
        entry = IntrinsicsEntry(fx=fx, fy=fy, cx=cx, cy=cy, width=int(width), height=int(height))
    except (ValueError, OverflowError) as error:
        what = f"fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g} of {width:g}x{height:g} pixels are no camera"
        fix = "export the capture again"
        raise DitrError(what, code=Code.DATASET, where=str(where), fix=fix) from error
    return Intrinsics(**entry.model_dump())


def kept_camera(colour: Intrinsics) -> Intrinsics:
    """That of the image which is kept of a colour camera's: the same field of view, at most ``LONG_SIDE`` long."""
    scale = min(1.0, LONG_SIDE / max(colour.width, colour.height))
    return resized(colour, width=round(colour.width * scale), height=round(colour.height * scale))


def resized(camera: Intrinsics, *, width: int, height: int) -> Intrinsics:
    """The camera of the same image at another size: its corner, at -0.5, stays where it is."""
    sx, sy = width / camera.width, height / camera.height
    return Intrinsics(
        fx=camera.fx * sx,
        fy=camera.fy * sy,
        cx=(camera.cx + 0.5) * sx - 0.5,
        cy=(camera.cy + 0.5) * sy - 0.5,
        width=width,
        height=height,
    )


def colour_in(colour: np.ndarray, *, source: Intrinsics, target: Intrinsics) -> np.ndarray:
    """(H, W, 3) uint8 as ``target`` would have seen it: the mean of the light on each pixel, the border repeated."""
    if source == target:
        return colour
    (left, right), (top, bottom) = (
        _of_source(ends, source=source, target=target, axis=axis) + 0.5
        for axis, ends in ((0, np.array([-0.5, target.width - 0.5])), (1, np.array([-0.5, target.height - 0.5])))
    )
    margin = max(0, *(int(np.ceil(over)) for over in (-left, -top, right - source.width, bottom - source.height)))
    padded = np.pad(colour, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    box = (left + margin, top + margin, right + margin, bottom + margin)
    size = (target.width, target.height)
    return np.asarray(Image.fromarray(padded).resize(size, Image.Resampling.BILINEAR, box=box))


def depth_in(depth_m: np.ndarray, *, source: Intrinsics, target: Intrinsics) -> np.ndarray:
    """(H, W) metres as ``target`` would have measured them, 0 where ``source`` (h, w) has nothing.

    Between pixels 1/z is linear, which it is on a plane; where depths jump, the nearest pixel's is taken.
    """
    if source == target:
        return depth_m
    rows, columns = _grid(source=source, target=target)
    nearest = labels_in(depth_m, source=source, target=target, outside=0.0)
    with np.errstate(divide="ignore"):
        inverse = np.where(depth_m > 0, 1 / depth_m, np.nan)
    y0, y1, fy = _between(rows, depth_m.shape[0])
    x0, x1, fx = _between(columns, depth_m.shape[1])
    corners = [inverse[y][:, x] for y in (y0, y1) for x in (x0, x1)]
    with np.errstate(invalid="ignore"):
        smooth = np.maximum.reduce(corners) <= _EDGE_RATIO * np.minimum.reduce(corners)
        above = corners[0] * (1 - fx) + corners[1] * fx
        below = corners[2] * (1 - fx) + corners[3] * fx
        between = 1 / (above * (1 - fy[:, None]) + below * fy[:, None])
    return np.where(smooth & (nearest > 0), between, nearest)


def labels_in(labels: np.ndarray, *, source: Intrinsics, target: Intrinsics, outside: float) -> np.ndarray:
    """(H, W) of (h, w): what the nearest pixel of ``source`` holds, and ``outside`` beyond its image."""
    if source == target:
        return labels
    rows, columns = (np.rint(places).astype(np.int64) for places in _grid(source=source, target=target))
    inside = ((rows >= 0) & (rows < labels.shape[0]))[:, None] & ((columns >= 0) & (columns < labels.shape[1]))
    rows, columns = rows.clip(0, labels.shape[0] - 1), columns.clip(0, labels.shape[1] - 1)
    return np.where(inside, labels[rows][:, columns], np.asarray(outside, dtype=labels.dtype))


def _grid(*, source: Intrinsics, target: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Rows (H,) and columns (W,) of the source in which the pixels of the target lie."""
    rows, columns = np.arange(target.height, dtype=np.float64), np.arange(target.width, dtype=np.float64)
    return (
        _of_source(rows, source=source, target=target, axis=1),
        _of_source(columns, source=source, target=target, axis=0),
    )


def _of_source(places: np.ndarray, *, source: Intrinsics, target: Intrinsics, axis: int) -> np.ndarray:
    """Pixel coordinates of the target as those of the source; axis 0 is u, 1 is v."""
    if axis == 0:
        return (places - target.cx) * (source.fx / target.fx) + source.cx
    return (places - target.cy) * (source.fy / target.fy) + source.cy


def _between(places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels before and after each place, within the image, and how far it is from the first to the second."""
    before = np.floor(places + _EXACT_PX)
    fraction = np.maximum(places - before, 0.0)
    after = np.where(fraction > _EXACT_PX, before + 1, before)
    return before.clip(0, size - 1).astype(np.int64), after.clip(0, size - 1).astype(np.int64), fraction
