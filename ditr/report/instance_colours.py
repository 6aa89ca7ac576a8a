"""Instances in colours of their own, whatever the ground truth: on the image, and on points."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from ditr.data.frame_view import FrameView
from ditr.report.frame_axes import palette

OPACITY = 0.55
EDGE = 255
REACH_PX = 8.0
"""How far from its pixel a point speaks for others: 20,000 points lie about four pixels apart."""


def instance_colours(instances: np.ndarray, *, without: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 of instances (N,), -1 = none: a colour an instance, and those of ``without`` (N, 3) elsewhere."""
    colours = np.rint(255 * palette(int(instances.max(initial=-1)) + 1)).astype(np.uint8)
    shown = instances >= 0
    found = without.copy()
    found[shown] = colours[instances[shown]]
    return found


def masks_on_image(view: FrameView, instances: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the image, and on it the instances (N,) of its points, with an edge around each.

    A pixel is of the instance of the nearest point that has a pixel, if that lies within ``REACH_PX``.
    """
    of_pixel = _of_pixels(view, instances)
    colours = instance_colours(of_pixel.ravel(), without=view.image.reshape(-1, 3)).reshape(view.image.shape)
    blended = np.rint((1 - OPACITY) * view.image + OPACITY * colours).astype(np.uint8)
    blended[_edges(of_pixel)] = EDGE
    return blended


def _of_pixels(view: FrameView, instances: np.ndarray) -> np.ndarray:
    """(H, W) instance of each pixel, -1 = none."""
    height, width = view.image_hw
    u, v = np.rint(view.uv[view.uv_valid]).astype(np.int64).T
    of_pixel, empty = np.full((height, width), -1), np.ones((height, width), dtype=bool)
    of_pixel[v, u], empty[v, u] = instances[view.uv_valid], False
    if empty.all():
        return of_pixel
    distance, (row, column) = distance_transform_edt(empty, return_indices=True)
    return np.where(distance <= REACH_PX, of_pixel[row, column], -1)


def _edges(of_pixel: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels of an instance beside one that is not of it."""
    edge = np.zeros(of_pixel.shape, dtype=bool)
    edge[:, 1:] |= of_pixel[:, 1:] != of_pixel[:, :-1]
    edge[1:] |= of_pixel[1:] != of_pixel[:-1]
    return edge & (of_pixel >= 0)
