"""One picture of a frame's 2D features: as a map on the image, and as its points read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ditr.features.coloured_frame import ColouredFrame
from ditr.report.figures import WITHOUT_PIXEL, draw_tokens

_POINT_SIZE = 4.0


def draw_features(coloured: ColouredFrame, *, title: str, caption: str, path: Path) -> None:
    """Writes the PNG, in folders that are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    feature_figure(coloured, title=title, caption=caption).savefig(path, format="png")


def feature_figure(coloured: ColouredFrame, *, title: str, caption: str) -> Figure:
    """The image, the map, the map over the image; the points in the image, in space and from above."""
    _, rows, columns = coloured.shape
    valid = coloured.uv_valid
    colours = np.where(valid[:, None], coloured.point_colours, WITHOUT_PIXEL)
    figure = Figure(figsize=(16.5, 9.4), dpi=110, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=14, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(caption, fontsize=10, x=0.01, ha="left", linespacing=1.5)
    plain, tokens, blended, pixels = (figure.add_subplot(2, 3, place) for place in (1, 2, 3, 4))
    _image(plain, coloured.image, "image")
    _image(tokens, coloured.image, f"map of {rows} x {columns} tokens{_beyond_the_image(coloured)}")
    _tokens(tokens, coloured, opacity=1.0)
    _image(blended, _grey(coloured.image), "map over the image")
    _tokens(blended, coloured, opacity=0.55)
    _image(pixels, _faded(coloured.image), "points at their pixels, as the model reads them")
    _points(pixels, coloured.uv[valid], colours[valid])
    _space(figure.add_subplot(2, 3, 5, projection="3d"), coloured, colours)
    _from_above(figure.add_subplot(2, 3, 6), coloured, colours)
    return figure


def _beyond_the_image(coloured: ColouredFrame) -> str:
    if coloured.map_hw == coloured.image.shape[:2]:
        return ""
    height, width = coloured.map_hw
    return f" over {height} x {width} pixels, cut at the image"


def _image(axes: Axes, image: np.ndarray, title: str) -> None:
    height, width = image.shape[:2]
    axes.imshow(image)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    _bare(axes, title)


def _tokens(axes: Axes, coloured: ColouredFrame, *, opacity: float) -> None:
    height, width = coloured.image.shape[:2]
    draw_tokens(axes, coloured.map_colours, map_hw=coloured.map_hw, image_hw=(height, width), opacity=opacity)


def _space(axes: Any, coloured: ColouredFrame, colours: np.ndarray) -> None:
    xyz, forward = coloured.frame.points[:, :3], coloured.frame.pose_c2w[:3, 2]
    axes.scatter(xyz[:, 0], xyz[:, 1], xyz[:, 2], c=colours, s=_POINT_SIZE, linewidths=0, depthshade=False)
    axes.view_init(elev=30, azim=float(np.degrees(np.arctan2(-forward[1], -forward[0]))) + 25)
    axes.set_box_aspect(np.maximum(np.ptp(xyz, axis=0), 0.1), zoom=1.45)
    outside = int((~coloured.uv_valid).sum())
    _bare(axes, f"points in space{f', {outside:,} without a pixel in grey' if outside else ''}")


def _from_above(axes: Axes, coloured: ColouredFrame, colours: np.ndarray) -> None:
    """Turned about +z so that the camera looks up the page: left and right are those of the image."""
    xyz, pose = coloured.frame.points[:, :3], coloured.frame.pose_c2w
    right = pose[:2, 0] / np.linalg.norm(pose[:2, 0])
    ahead = np.array([-right[1], right[0]])
    order = np.argsort(xyz[:, 2])  # the highest on top
    from_camera = (xyz[:, :2] - pose[:2, 3])[order]
    _points(axes, np.stack([from_camera @ right, from_camera @ ahead], axis=1), colours[order])
    axes.plot([0], [0], marker="^", color="black", markersize=8)
    axes.set_aspect("equal", adjustable="datalim")
    _bare(axes, "points from above, the camera at the triangle")


def _points(axes: Axes, places: np.ndarray, colours: np.ndarray) -> None:
    axes.scatter(places[:, 0], places[:, 1], c=colours, s=_POINT_SIZE, linewidths=0)


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_axis_off()


def _grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(image.mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8))


def _faded(image: np.ndarray) -> np.ndarray:
    """Light grey, so that points of any colour show."""
    return np.asarray((255 - 0.3 * (255.0 - _grey(image))).astype(np.uint8))
