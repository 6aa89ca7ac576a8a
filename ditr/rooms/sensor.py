"""The faults of an RGB-D camera: noise, missing depth, 8 bits, whole millimetres."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ditr.rooms.furniture import Rng
from ditr.rooms.render import View

_GRAZING_COSINE = 0.2
_FAR_M = 6.5
_EDGE_RATIO = 0.04


def sense_colour(view: View, *, rng: Rng) -> np.ndarray:
    """(H, W, 3) uint8: exposure, gamma, noise."""
    exposure = 0.62 / max(float(np.quantile(view.colour.mean(axis=2), 0.8)), 0.05)
    exposed = np.clip(view.colour * np.float32(np.clip(exposure, 0.6, 1.6)), 0, 1)
    noise = rng.standard_normal(exposed.shape, dtype=np.float32)
    return np.asarray(np.clip(255 * exposed ** np.float32(0.62) + 2.0 * noise, 0, 255).round().astype(np.uint8))


def sense_depth(view: View, *, rng: Rng) -> np.ndarray:
    """(H, W) uint16 millimetres, 0 = missing: at edges, grazing angles, far away, in a few blotches."""
    true = np.where(np.isfinite(view.hits.depth_m), view.hits.depth_m, 0).astype(np.float32)  # 0 is missing, below
    sigma = 0.0008 + 0.001 * np.square(np.maximum(true - 0.4, 0))
    measured = true + sigma * rng.standard_normal(true.shape, dtype=np.float32)
    chance = rng.random(true.shape, dtype=np.float32)
    missing = true < 0.35
    missing |= chance < 0.004
    missing |= (view.facing < _GRAZING_COSINE) & (chance < 1 - view.facing / _GRAZING_COSINE)
    missing |= (true > _FAR_M) & (chance < (true - _FAR_M) / 2)
    missing |= _edges(true) & (chance < 0.7)
    missing |= _blotches(true.shape, rng)
    return np.where(missing, 0, np.clip(measured * 1000, 1, 65535).round()).astype(np.uint16)


def _edges(depth: np.ndarray) -> np.ndarray:
    """Pixels beside a jump in depth."""
    jump = np.zeros(depth.shape, dtype=bool)
    across = np.abs(np.diff(depth, axis=1)) > _EDGE_RATIO * depth[:, 1:]
    down = np.abs(np.diff(depth, axis=0)) > _EDGE_RATIO * depth[1:]
    jump[:, 1:] |= across
    jump[:, :-1] |= across
    jump[1:] |= down
    jump[:-1] |= down
    return np.asarray(ndimage.binary_dilation(jump))


def _blotches(shape: tuple[int, ...], rng: Rng) -> np.ndarray:
    """A few ragged holes, as shiny spots leave them."""
    holes = np.zeros(shape, dtype=bool)
    for _ in range(int(rng.integers(0, 4))):
        radius = int(rng.integers(6, 22))
        v, u = int(rng.integers(radius, shape[0] - radius)), int(rng.integers(radius, shape[1] - radius))
        y, x = np.mgrid[-radius:radius, -radius:radius]
        ragged = np.hypot(x, y) < radius * rng.uniform(0.55, 1.0, x.shape)
        holes[v - radius : v + radius, u - radius : u + radius] |= ragged
    return holes
