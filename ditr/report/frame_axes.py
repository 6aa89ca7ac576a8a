"""What pictures of frames are made of: an image, tokens, points in the image and in space, keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb

from ditr.data.frame_view import FrameView

PALE = (0.85, 0.85, 0.85)
"""Of points of which there is nothing to say, where they are drawn at all."""
WITHOUT_PIXEL = (0.62, 0.62, 0.62)
"""Of points that no pixel of the image is of."""


def faded(image: np.ndarray, strength: float) -> np.ndarray:
    """In light grey, so that points of any colour show; a ``strength`` of 0 is white."""
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    return np.asarray((255 - strength * (255 - grey)).astype(np.uint8))


def draw_image(axes: Axes, image: np.ndarray, title: str) -> None:
    """The image (H, W, 3), to its very edges."""
    axes.imshow(image, interpolation="bilinear")
    entitle(axes, title)


def draw_tokens(axes: Axes, view: FrameView, *, opacity: float) -> None:
    """Each token's colour on the rectangle of pixels that it stands for; what the map covers beyond the image is cut
    off. Features of points are drawn at their pixels."""
    assert view.features is not None, "there is a map to draw"
    if view.features.covers_hw is None:
        draw_points(axes, view, view.features.of_tokens[0] / 255)
        return
    height, width = view.features.covers_hw
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(view.features.of_tokens, extent=extent, interpolation="nearest", alpha=opacity, zorder=2)
    height, width = view.image_hw
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_points(
    axes: Axes, view: FrameView, colours: np.ndarray | str, *, where: np.ndarray | None = None, size: float = 3.5
) -> None:
    """Points at their pixels, in colours (N, 3) in 0..1 or in one: those ``where`` (N,), of which have a pixel."""
    shown = view.uv_valid if where is None else view.uv_valid & where
    uv = view.uv[shown]
    axes.scatter(uv[:, 0], uv[:, 1], s=size, c=colours if isinstance(colours, str) else colours[shown], linewidths=0)


def draw_space(
    axes: Any, xyz: np.ndarray, colours: np.ndarray, title: str, *, forward: np.ndarray, every: int = 1, zoom: float
) -> None:
    """Points in three dimensions, seen from beside and behind a camera that looks along ``forward`` (3,); of ``every``
    so many one is drawn."""
    xyz = xyz[::every]
    axes.scatter(*xyz.T, c=colours[::every], s=4.0, linewidths=0, depthshade=False)
    axes.view_init(elev=30, azim=float(np.degrees(np.arctan2(-forward[1], -forward[0]))) + 25)
    axes.set_box_aspect(np.maximum(np.ptp(xyz, axis=0), 0.1), zoom=zoom)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_axis_off()


def draw_keys(axes: Axes, colours: Mapping[str, str]) -> None:
    """A legend of colours by name."""
    for name, colour in colours.items():
        axes.scatter([], [], s=40, c=colour, label=name)
    axes.legend(loc="lower left", frameon=True, framealpha=0.9, fontsize=9, ncols=len(colours))


def entitle(axes: Axes, title: str) -> None:
    """A title, and no frame around."""
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def palette(count: int) -> np.ndarray:
    """(count, 3) vivid colours; neighbours in the list differ much in hue."""
    index = np.arange(count)
    hue = index * 0.61803398875 % 1
    return hsv_to_rgb(np.stack([hue, 0.95 - 0.35 * (index % 2), 0.92 - 0.3 * (index // 2 % 2)], axis=1))
