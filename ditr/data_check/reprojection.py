"""How far the declared camera is from the pixels that a frame's points were made of.

Points of a prepared frame are back-projected pixels (docs/reference/esam.md, Making a frame 6), so that in the camera's
frame x/z lies on a lattice of spacing 1/fx. Under wrong intrinsics every projected point still has some pixel centre
within half a pixel, so the distance to the nearest one says little. Here the lattice is found in the points themselves:
the scale and shift that bring all projections onto whole pixels are what the declared camera lacks.

What it cannot tell: a shift by whole pixels and a camera turned by half a turn map the lattice onto itself, and so does
some wrong pose before a flat wall. The agreement of colours catches those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ditr.geometry.camera import Intrinsics

LIMIT_PX = 0.5
"""A data set with a frame whose median error is larger is refused."""
MIN_CONCENTRATION = 0.9
"""Of |mean exp(2 pi i u)|, 1 where all u are whole pixels, near 0 where they are anywhere; noise of 0.07 px gives 0.9.
"""
MAX_SCALE_ERROR = 0.1
"""Focal lengths are looked for within this share of the declared ones."""
MIN_COLUMNS = 32
"""Fewer pixel columns, or rows, with points in them do not tell one lattice from another."""
EDGES_PX = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, np.inf)
"""Bounds of the bins in which errors are counted."""
_BINS_PER_PX = 16
_MIN_DEPTH_M = 1e-6


@dataclass(frozen=True, kw_only=True)
class FrameReprojection:
    """What the points of one frame say about its camera."""

    verdict: Literal["lattice", "none", "unclear"]
    """none: these are not pixels of this camera in this pose; unclear: too few pixel columns or rows to tell."""
    error_px: float | None = None
    """Median over the points of the distance from the declared projection to the pixel; only with a lattice."""
    points: tuple[int, ...] = ()
    """Points by error, bins of ``EDGES_PX``; only with a lattice."""
    intrinsics: Intrinsics | None = None
    """Those that the points were made with, the principal point up to whole pixels; only with a lattice."""


@dataclass(frozen=True)
class _Lattice:
    """``scale * u + shift`` is the whole pixel of a projection u."""

    scale: float
    shift: float
    concentration: float


def measure(xyz: np.ndarray, *, pose_c2w: np.ndarray, intrinsics: Intrinsics) -> FrameReprojection:
    """Compares (N, 3) world points in metres with the pixels that they come from.

    Points may repeat, as those of a frame with little depth do.
    """
    camera = (xyz.astype(np.float64) - pose_c2w[:3, 3]) @ np.linalg.inv(pose_c2w[:3, :3]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        u = intrinsics.fx * camera[:, 0] / camera[:, 2] + intrinsics.cx
        v = intrinsics.fy * camera[:, 1] / camera[:, 2] + intrinsics.cy
        near = (np.abs(u - intrinsics.cx) < intrinsics.width) & (np.abs(v - intrinsics.cy) < intrinsics.height)
    near &= camera[:, 2] > _MIN_DEPTH_M
    seen = float(near.mean())
    if seen < MIN_CONCENTRATION:
        return FrameReprojection(verdict="none")
    u, v = u[near], v[near]
    lattices = (_find_lattice(u, about=intrinsics.cx), _find_lattice(v, about=intrinsics.cy))
    if any(lattice is not None and lattice.concentration * seen < MIN_CONCENTRATION for lattice in lattices):
        return FrameReprojection(verdict="none")
    of_u, of_v = lattices
    if of_u is None or of_v is None:
        return FrameReprojection(verdict="unclear")
    error = np.hypot((of_u.scale - 1) * u + of_u.shift, (of_v.scale - 1) * v + of_v.shift)
    return FrameReprojection(
        verdict="lattice",
        error_px=float(np.median(error)),
        points=tuple(np.histogram(error, EDGES_PX)[0].tolist()),
        intrinsics=replace(
            intrinsics,
            fx=of_u.scale * intrinsics.fx,
            fy=of_v.scale * intrinsics.fy,
            cx=of_u.scale * intrinsics.cx + of_u.shift,
            cy=of_v.scale * intrinsics.cy + of_v.shift,
        ),
    )


def _find_lattice(u: np.ndarray, *, about: float) -> _Lattice | None:
    """The best lattice of projections (N,), shifted so that it moves the pixel ``about`` least; None if unclear."""
    column = np.floor(u - u.min()).astype(np.int64)
    counts = np.bincount(column)
    if np.count_nonzero(counts) < MIN_COLUMNS:
        return None
    # A column counts by the root of its points: neither one pixel drawn many times nor a few stray points decide.
    weights = 1.0 / np.sqrt(counts[column])
    weights /= weights.sum()
    scale = _coarse_scale(u, weights)
    shift = -np.angle(weights @ np.exp(2j * np.pi * scale * u)) / (2 * np.pi)
    scale, shift = _refined(u, weights, scale=scale, shift=shift)
    concentration = float(weights @ np.cos(2 * np.pi * (scale * u + shift)))
    moved = scale * about + shift - about
    return _Lattice(scale, shift - round(moved), concentration)


def _coarse_scale(u: np.ndarray, weights: np.ndarray) -> float:
    """The strongest frequency near one per pixel, to a quarter of a period over the whole width.

    Of equally strong ones, which a regular subset of pixels has, the one nearest to what was declared.
    """
    bins = ((u - u.min()) * _BINS_PER_PX).astype(np.int64)
    density = np.bincount(bins, weights=weights)
    length = 1 << int(len(density) * 2 - 1).bit_length()  # zeros behind: at least twice the points' own resolution
    strength = np.abs(np.fft.rfft(density, length))
    frequency = np.arange(len(strength)) * (_BINS_PER_PX / length)
    inside = np.abs(frequency - 1) <= MAX_SCALE_ERROR
    strength, frequency = strength[inside], frequency[inside]
    candidates = frequency[strength >= strength.max() - 0.02]
    return float(candidates[np.argmin(np.abs(candidates - 1))])


def _refined(u: np.ndarray, weights: np.ndarray, *, scale: float, shift: float) -> tuple[float, float]:
    """Least squares of the projections over the pixels that they are nearest to, without points between pixels."""
    for _ in range(2):
        position = scale * u + shift
        pixel = np.rint(position)
        w = weights * (np.abs(position - pixel) < 0.25)
        if not w.any():
            break
        mean_pixel, mean_u = np.average(pixel, weights=w), np.average(u, weights=w)
        spread = w @ (pixel - mean_pixel) ** 2
        if spread == 0:
            break
        spacing = w @ ((pixel - mean_pixel) * (u - mean_u)) / spread  # the noise is in u, pixels are whole
        scale, shift = float(1 / spacing), float(mean_pixel - mean_u / spacing)
    return scale, shift
