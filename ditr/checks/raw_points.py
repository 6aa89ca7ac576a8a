"""Where the points of a frame fall in its image, computed without any of the code that a run computes it with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ditr.data.batch import Sample
from ditr.data.frame import Frame
from ditr.data.samples import COLOUR_MEAN, COLOUR_STD

_SHIFTS = range(-2, 3)


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Of N points."""

    uv: np.ndarray
    """(N, 2) float64, u to the right, v down; NaN behind the camera."""
    visible: np.ndarray
    """(N,) bool: in front of the camera and inside the image."""


def pixels_of(frame: Frame) -> Pixels:
    """The camera's axes are the columns of its rotation, so a point's coordinate along each is a product with it."""
    camera, of_camera = frame.intrinsics, frame.pose_c2w[:3, :3]
    right, down, ahead = ((frame.points[:, :3].astype(np.float64) - frame.pose_c2w[:3, 3]) @ of_camera).T
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.where(ahead > 0, camera.cx + camera.fx * right / ahead, np.nan)
        v = np.where(ahead > 0, camera.cy + camera.fy * down / ahead, np.nan)
        visible = (np.abs(u - (camera.width - 1) / 2) <= camera.width / 2) & (
            np.abs(v - (camera.height - 1) / 2) <= camera.height / 2
        )
    return Pixels(uv=np.stack([u, v], axis=1), visible=visible)


def off_whole_px(pixels: Pixels) -> float:
    """Mean distance of the seen points from whole pixels; NaN if none is seen."""
    uv = pixels.uv[pixels.visible]
    return float(np.hypot(*(uv - np.rint(uv)).T).mean()) if len(uv) else float("nan")


def uv_difference_px(sample: Sample, pixels: Pixels, *, mirrored_in: int | None) -> float:
    """Mean distance of a sample's pixels from ``pixels``; a point that only one of them sees counts as off the image.

    ``mirrored_in`` is the width of the image if it is mirrored.
    """
    uv = pixels.uv if mirrored_in is None else np.stack([mirrored_in - 1 - pixels.uv[:, 0], pixels.uv[:, 1]], axis=1)
    valid = sample.uv_valid.numpy()
    both = valid & pixels.visible
    distance = np.hypot(*(sample.uv.numpy()[both] - uv[both]).T).sum()
    if sample.map_hw is None:  # points read their own features, on the image or off it
        return float(distance) / len(valid)
    return float(distance + max(sample.map_hw) * np.sum(valid != pixels.visible)) / len(valid)


def colour_errors(sample: Sample, image: np.ndarray) -> np.ndarray:
    """(5, 5) mean difference, of 255, between a sample's colours and those of the pixels beside its points' own.

    Rows are shifts down by -2 to 2 pixels, columns to the right: the middle is the pixel itself. NaN if no point is
    valid.
    """
    valid = sample.uv_valid.numpy()
    colours = sample.colour.numpy()[valid] * COLOUR_STD + COLOUR_MEAN
    u, v = np.rint(np.nan_to_num(sample.uv.numpy()[valid])).astype(np.int64).T
    height, width = image.shape[:2]
    errors = np.full((len(_SHIFTS), len(_SHIFTS)), np.nan)
    if not len(u):
        return errors
    for row, down in enumerate(_SHIFTS):
        for column, right in enumerate(_SHIFTS):
            there = image[np.clip(v + down, 0, height - 1), np.clip(u + right, 0, width - 1)]
            errors[row, column] = np.abs(there - colours).mean()
    return errors


@dataclass(frozen=True, kw_only=True)
class Move:
    """What an augmentation did to the points of a frame, as far as an affine map tells."""

    determinant: float
    """Of the linear map from the raw points to the moved: below 0 where they are mirrored."""
    unexplained: float
    """Share of the variance of the moved points that no affine map of the raw ones gives: 1 where rows are mixed."""


def move_of(moved: Tensor, frame: Frame) -> Move:
    """Of (N, 3) points of a sample, whose rows are to be those of the frame."""
    raw = frame.points[:, :3].astype(np.float64)
    raw, there = raw - raw.mean(axis=0), moved.numpy().astype(np.float64)
    there = there - there.mean(axis=0)
    linear, *_ = np.linalg.lstsq(raw, there, rcond=None)
    unexplained = np.square(there - raw @ linear).sum() / np.square(there).sum()
    return Move(determinant=float(np.linalg.det(linear)), unexplained=float(unexplained))
