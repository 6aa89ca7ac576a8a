"""Groups of touching, coplanar things that have one mean colour and one contrast, and differ only in fine texture.

A group fills a panel (posters at a wall, cupboard fronts, stacked boxes, mats) that is cut at a random place, along a
random axis, into one to three things. A panel of one thing is a decoy: its outline says nothing about whether and where
a panel is cut, so geometry and mean colour cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ditr.rooms.furniture import Rng, Thing, contrast, patterned
from ditr.rooms.shapes import shape
from ditr.rooms.textures import FINE_KINDS

Place = Literal["hung", "at_wall", "free"]
Rect = tuple[float, float, float, float]
_MIN_SIDE_M = 0.3


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Things that were made together, in the frame of furniture; hung ones have their back at y = 0."""

    things: tuple[Thing, ...]
    size: tuple[float, float, float]
    place: Place


def panel(rng: Rng, *, count: int, group: int) -> Panel:
    """A panel cut into ``count`` (1 to 3) things of group ``group``; a single one belongs to no group."""
    names, place, flat, (wide, tall, thick) = _KINDS[rng.choice(len(_KINDS), p=_ODDS)]
    width, height, depth = rng.uniform(*wide), rng.uniform(*tall), rng.uniform(*thick)
    name = names[rng.integers(len(names))]
    mean = np.clip(rng.uniform(0.35, 0.65) + rng.normal(0, 0.1, 3), 0.3, 0.7)
    strength, period = contrast(rng), rng.uniform(0.016, 0.026)
    kinds = rng.permutation(len(FINE_KINDS))
    things = []
    for index, (left, right, low, high) in enumerate(cut(rng, count, width=width, height=height)):
        skin = patterned(rng, mean=mean, kind=FINE_KINDS[kinds[index]], contrast=strength, period_m=period)
        middle, across = ((left + right) / 2, (low + high) / 2), (right - left, high - low)
        if flat:
            at, size = (middle[0], middle[1] - height / 2, depth / 2), (across[0], across[1], depth)
        else:
            back = -depth / 2 if place == "hung" else 0.0
            at, size = (middle[0], back, middle[1]), (across[0], depth, across[1])
        body = shape("box", at=at, size=size, material=skin)
        things.append(Thing(name=name, shapes=(body,), size=size, group=group if count > 1 else 0))
    return Panel(things=tuple(things), size=(width, height, depth) if flat else (width, depth, height), place=place)


def cut(rng: Rng, count: int, *, width: float, height: float) -> list[Rect]:
    """``count`` rectangles (left, right, low, high) that fill the panel, left -width/2 to width/2, low 0 to height."""
    rects: list[Rect] = [(-width / 2, width / 2, 0.0, height)]
    while len(rects) < count:
        rects.sort(key=lambda r: (r[1] - r[0]) * (r[3] - r[2]))
        left, right, low, high = rects.pop()
        spans = np.array([right - left, high - low])
        fits = spans >= 2 * _MIN_SIDE_M
        upright = bool(rng.random() < 0.5) if fits.all() else bool(fits[0]) or not fits[1]
        span = spans[0] if upright else spans[1]
        margin = min(_MIN_SIDE_M, 0.45 * span)
        at = rng.uniform(margin, span - margin)
        if upright:
            rects += [(left, left + at, low, high), (left + at, right, low, high)]
        else:
            rects += [(left, right, low, low + at), (left, right, low + at, high)]
    return rects


# names, where, lying flat, ranges in metres: width, height (depth of flat ones), thickness
_KINDS: tuple[tuple[tuple[str, ...], Place, bool, tuple[tuple[float, float], ...]], ...] = (
    (("picture", "poster", "bulletin board", "board"), "hung", False, ((0.9, 1.7), (0.65, 1.1), (0.02, 0.03))),
    (("cabinet", "wardrobe", "kitchen cabinet"), "at_wall", False, ((0.9, 1.7), (0.8, 1.7), (0.4, 0.55))),
    (("box", "storage bin", "crate"), "free", False, ((0.7, 1.2), (0.65, 1.0), (0.35, 0.5))),
    (("mat",), "free", True, ((0.9, 1.7), (0.7, 1.3), (0.012, 0.02))),
)
_ODDS = (0.4, 0.25, 0.15, 0.2)
