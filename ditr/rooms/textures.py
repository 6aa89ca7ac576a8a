"""Colours of surfaces. Fine patterns have, whatever their kind, the same mean colour and the same variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Fine = Literal["horizontal", "vertical", "rising", "falling", "checker", "dots"]
FINE_KINDS: tuple[Fine, ...] = get_args(Fine)
"""Patterns that differ in nothing but their texture."""
Coarse = Literal["plain", "planks", "tiles", "wood"]

# periods relative to Material.period_m, and transition lengths per area, which make the pixels' variance alike
_STRETCH = {"checker": 1.4, "dots": 1.2}
_EDGES = {"checker": 4 / 1.4, "dots": 2.5 / 1.2}
_ANGLES = {"horizontal": np.pi / 2, "vertical": 0.0, "rising": np.pi / 4, "falling": -np.pi / 4}
_DOT_RADIUS = float(np.sqrt(0.5 / np.pi))


@dataclass(frozen=True, kw_only=True)
class Material:
    """Albedo of a surface."""

    colour: tuple[float, float, float]
    """Mean albedo, 0..1."""
    pattern: Fine | Coarse = "plain"
    period_m: float = 0.02
    contrast: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Standard deviation of each channel."""
    phase: tuple[float, float] = (0.0, 0.0)
    """Shift of the pattern in metres."""
    glow: float = 0.0
    """Light it gives off itself, 0..1."""


def albedo(material: Material, surface_m: np.ndarray, pixel_m: np.ndarray) -> np.ndarray:
    """(n, 3) float32 albedo at surface coordinates (n, 2) in metres, where a pixel is (n,) metres wide."""
    base = np.asarray(material.colour, dtype=np.float32)
    if material.pattern == "plain":
        return np.broadcast_to(base, (len(surface_m), 3))
    shifted = surface_m + np.asarray(material.phase, dtype=np.float32)
    if material.pattern in FINE_KINDS:
        value = fine(material.pattern, shifted, period_m=material.period_m, pixel_m=pixel_m)
    else:
        value = _coarse(material.pattern, shifted, material.period_m)
    return np.asarray(base + value[:, None] * np.asarray(material.contrast, dtype=np.float32))


def fine(kind: Fine, surface_m: np.ndarray, *, period_m: float, pixel_m: np.ndarray) -> np.ndarray:
    """(n,) values of mean 0 and variance 1 over whole periods, antialiased over the width of a pixel."""
    period = period_m * _STRETCH.get(kind, 1.0)
    width = np.maximum(pixel_m, 1e-5).astype(np.float32)
    x, y = surface_m[:, 0], surface_m[:, 1]
    if kind == "checker":
        value = _square(x, period, width) * _square(y, period, width)
    elif kind == "dots":
        fraction = np.stack([x, y]) / period
        radius = np.hypot(*(fraction - np.round(fraction))) * period
        value = np.clip((_DOT_RADIUS * period - radius) * 2 / width, -1, 1) * np.minimum(1, period / (2 * width))
    else:
        angle = _ANGLES[kind]
        value = _square(np.cos(angle) * x + np.sin(angle) * y, period, width)
    mixed = np.minimum(_EDGES.get(kind, 2.0) * width / period_m, 0.9)  # share of the area that is in transition
    return np.asarray(value / np.sqrt(1 - 2 / 3 * mixed), dtype=np.float32)


def _square(x: np.ndarray, period: float, width: np.ndarray) -> np.ndarray:
    cycles = x / period
    triangle = 4 * np.abs(cycles - np.floor(cycles) - 0.5) - 1
    return np.asarray(np.clip(triangle * (period / 2) / width, -1, 1))


def _coarse(kind: str, surface_m: np.ndarray, period_m: float) -> np.ndarray:
    x, y = surface_m[:, 0] / period_m, surface_m[:, 1] / period_m
    if kind == "wood":
        rings = y * 6 + np.sin(x * 0.9) * 0.8
        return np.asarray(0.7 * np.sin(rings * 2.1) + 0.5 * np.sin(rings * 5.3 + np.sin(x * 2.3)), dtype=np.float32)
    row = np.floor(y)
    along = x + 0.37 * row if kind == "tiles" else x / 6 + 0.618 * row
    column = np.floor(along)
    shade = np.sin(row * 12.9898 + column * 78.233) * 43758.5453
    value = 2 * (shade - np.floor(shade)) - 1
    gap = (np.abs(y - row - 0.5) > 0.475) | (np.abs(along - column - 0.5) > (0.475 if kind == "tiles" else 0.495))
    return np.where(gap, -2.5, value).astype(np.float32)
