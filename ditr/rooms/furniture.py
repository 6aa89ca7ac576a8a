"""Things that stand in rooms, each built in its own frame: x to its right, y to its back, z up, origin on the floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ditr.rooms.shapes import Shape, shape
from ditr.rooms.textures import FINE_KINDS, Coarse, Material

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A horizontal place to put things on: centre and extents in metres."""

    x: float
    y: float
    z: float
    width: float
    depth: float


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One instance: a class and the shapes it consists of."""

    name: str
    """ScanNet200 class."""
    shapes: tuple[Shape, ...]
    size: tuple[float, float, float]
    """Width, depth and height in metres of the space it takes."""
    surfaces: tuple[Surface, ...] = ()
    group: int = 0
    """Things of one group above 0 differ only in fine texture."""
    annotated: bool = True
    """Whether the ground truth knows it; what it does not know has instance and class 0."""

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Thing:
        """The thing turned about the origin, then shifted."""
        return replace(self, shapes=tuple(part.moved(rotation, shift) for part in self.shapes))


def paint(rng: Rng, *, pattern: Coarse = "plain", dark: float = 0.12, light: float = 0.85) -> Material:
    """A random colour; some plain surfaces carry a fine pattern, so that patterns do not give groups away."""
    grey = rng.uniform(dark, light)
    colour = np.clip(grey + rng.normal(0, 0.35 * min(grey, 1 - grey), 3), 0.03, 0.95)
    if pattern == "plain" and rng.random() < 0.3:
        return patterned(rng, mean=colour, kind=FINE_KINDS[rng.integers(len(FINE_KINDS))], contrast=contrast(rng))
    strength = 0.06 * grey if pattern != "plain" else 0.0
    return Material(
        colour=_triple(colour),
        pattern=pattern,
        period_m=0.15,
        contrast=(strength, strength, strength),
        phase=(rng.uniform(0, 9), rng.uniform(0, 9)),
    )


def contrast(rng: Rng) -> np.ndarray:
    """(3,) standard deviation of a fine pattern's channels: mostly brightness."""
    return np.asarray(rng.uniform(0.1, 0.18) * (1 + rng.normal(0, 0.15, 3)))


def patterned(
    rng: Rng, *, mean: np.ndarray, kind: str, contrast: np.ndarray, period_m: float | None = None
) -> Material:
    """A fine pattern around a mean colour, kept where no value clips."""
    room = np.minimum(mean - 0.02, 0.98 - mean) / 1.25
    return Material(
        colour=_triple(mean),
        pattern=kind,  # type: ignore[arg-type]
        period_m=period_m or rng.uniform(0.016, 0.026),
        contrast=_triple(np.minimum(contrast, np.maximum(room, 0))),
        phase=(rng.uniform(0, 1), rng.uniform(0, 1)),
    )


def wood(rng: Rng) -> Material:
    """Brown grain, from birch to walnut."""
    depth = rng.uniform(0.25, 0.8)
    colour = depth * np.array([1.0, rng.uniform(0.68, 0.82), rng.uniform(0.42, 0.62)])
    return Material(
        colour=_triple(colour),
        pattern="wood",
        period_m=0.25,
        contrast=_triple(0.09 * colour),
        phase=(rng.uniform(0, 9), rng.uniform(0, 9)),
    )


def chair(rng: Rng) -> Thing:
    """Seat, four legs, a back."""
    width, seat, height = rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.48), rng.uniform(0.8, 1.0)
    body, legs = (wood(rng), paint(rng))[:: 1 if rng.random() < 0.5 else -1]
    parts = [
        shape("box", at=(0, 0, seat), size=(width, width, 0.05), material=body),
        shape("box", at=(0, width / 2 - 0.02, (seat + height) / 2 + 0.05), size=(width, 0.04, height - seat - 0.1),
              material=body),
        *_legs(width, width, seat, legs, thick=0.04),
    ]  # fmt: skip
    return Thing(name="chair", shapes=tuple(parts), size=(width, width, height))


def office_chair(rng: Rng) -> Thing:
    """A cushion on a pole."""
    cloth, metal = paint(rng, light=0.5), paint(rng, light=0.3)
    parts = (
        shape("cylinder", at=(0, 0, 0.04), size=(0.55, 0.55, 0.06), material=metal),
        shape("cylinder", at=(0, 0, 0.25), size=(0.07, 0.07, 0.4), material=metal),
        shape("box", at=(0, 0, 0.48), size=(0.5, 0.5, 0.09), material=cloth),
        shape("box", at=(0, 0.24, 0.8), size=(0.46, 0.07, 0.5), material=cloth, tilt=-0.15),
    )
    return Thing(name="office chair", shapes=parts, size=(0.55, 0.6, 1.05))


def table(rng: Rng) -> Thing:
    """A top on four legs, or a round one on a pole."""
    name = ("table", "desk", "coffee table", "dining table")[rng.integers(4)]
    height = rng.uniform(0.38, 0.48) if name == "coffee table" else rng.uniform(0.7, 0.78)
    width, depth = rng.uniform(0.9, 1.6), rng.uniform(0.55, 0.85)
    if name in ("table", "coffee table") and rng.random() < 0.35:
        width = depth = rng.uniform(0.7, 1.1)
        top = wood(rng)
        parts = [
            shape("cylinder", at=(0, 0, height - 0.02), size=(width, depth, 0.04), material=top),
            shape("cylinder", at=(0, 0, height / 2), size=(0.09, 0.09, height - 0.04), material=top),
            shape("cylinder", at=(0, 0, 0.02), size=(0.5, 0.5, 0.04), material=top),
        ]
        spot = Surface(x=0, y=0, z=height, width=width * 0.65, depth=depth * 0.65)
    else:
        top = wood(rng) if rng.random() < 0.6 else paint(rng)
        parts = [
            shape("box", at=(0, 0, height - 0.02), size=(width, depth, 0.04), material=top),
            *_legs(width, depth, height - 0.04, wood(rng) if rng.random() < 0.5 else top, thick=0.05),
        ]
        spot = Surface(x=0, y=0, z=height, width=width, depth=depth)
    return Thing(name=name, shapes=tuple(parts), size=(width, depth, height), surfaces=(spot,))


def couch(rng: Rng) -> Thing:
    """Base, back, two arms, seat cushions."""
    single = rng.random() < 0.35
    width, depth = (rng.uniform(0.8, 0.95) if single else rng.uniform(1.5, 2.1)), rng.uniform(0.8, 0.95)
    cloth = paint(rng)
    seat = replace(cloth, colour=_triple(np.clip(np.array(cloth.colour) * rng.uniform(0.85, 1.15), 0, 0.95)))
    parts = (
        shape("box", at=(0, 0, 0.15), size=(width, depth, 0.3), material=cloth),
        shape("box", at=(0, -0.05, 0.37), size=(width - 0.36, depth - 0.2, 0.14), material=seat),
        shape("box", at=(0, depth / 2 - 0.1, 0.52), size=(width, 0.2, 0.62), material=cloth),
        shape("box", at=(-width / 2 + 0.09, 0, 0.36), size=(0.18, depth, 0.44), material=cloth),
        shape("box", at=(width / 2 - 0.09, 0, 0.36), size=(0.18, depth, 0.44), material=cloth),
    )
    spot = Surface(x=0, y=0, z=0.44, width=width - 0.4, depth=depth - 0.35)
    name = "armchair" if single else "couch"
    return Thing(name=name, shapes=parts, size=(width, depth, 0.85), surfaces=(spot,))


def bed(rng: Rng) -> Thing:
    """Frame, mattress, headboard."""
    width, depth = rng.uniform(1.0, 1.7), rng.uniform(1.9, 2.1)
    frame, cloth = wood(rng), paint(rng, dark=0.35)
    parts = (
        shape("box", at=(0, 0, 0.17), size=(width, depth, 0.26), material=frame),
        shape("box", at=(0, -0.03, 0.4), size=(width - 0.06, depth - 0.1, 0.22), material=cloth),
        shape("box", at=(0, depth / 2 - 0.03, 0.5), size=(width, 0.06, 1.0), material=frame),
    )
    spot = Surface(x=0, y=0.1, z=0.51, width=width - 0.2, depth=depth - 0.5)
    return Thing(name="bed", shapes=parts, size=(width, depth, 1.0), surfaces=(spot,))


def cabinet(rng: Rng) -> Thing:
    """A closed box with doors and handles: cabinets of many heights."""
    name, low, high = (
        ("cabinet", 0.8, 1.4), ("wardrobe", 1.8, 2.1), ("nightstand", 0.45, 0.6), ("dresser", 0.7, 1.0),
        ("refrigerator", 1.4, 1.8), ("file cabinet", 0.6, 1.3),
    )[rng.integers(6)]  # fmt: skip
    width = rng.uniform(0.4, 0.55) if name in ("nightstand", "file cabinet") else rng.uniform(0.6, 1.2)
    depth, height = rng.uniform(0.4, 0.6), rng.uniform(low, high)
    body = paint(rng, dark=0.5) if name == "refrigerator" or rng.random() < 0.4 else wood(rng)
    handle = paint(rng, light=0.4)
    parts = [shape("box", at=(0, 0, height / 2), size=(width, depth, height), material=body)]
    rows = 1 if height > 1.2 else int(rng.integers(1, 4))
    for row in range(rows):
        middle = height * (row + 0.5) / rows
        parts.append(shape("box", at=(0, -depth / 2 - 0.012, middle), size=(0.12, 0.024, 0.025), material=handle))
        edge = height * row / rows + 0.01
        parts.append(shape("box", at=(0, -depth / 2, edge), size=(width - 0.02, 0.006, 0.012), material=handle))
    spot = Surface(x=0, y=0, z=height, width=width, depth=depth)
    surfaces = (spot,) if height < 1.3 else ()
    return Thing(name=name, shapes=tuple(parts), size=(width, depth, height), surfaces=surfaces)


def bookshelf(rng: Rng) -> Thing:
    """Boards between two sides, before a thin back."""
    width, depth, height = rng.uniform(0.6, 1.2), rng.uniform(0.28, 0.36), rng.uniform(0.9, 2.0)
    body = wood(rng) if rng.random() < 0.6 else paint(rng)
    count = max(2, round(height / 0.4))
    parts = [
        shape("box", at=(0, depth / 2 - 0.01, height / 2), size=(width, 0.02, height), material=body),
        shape("box", at=(-width / 2 + 0.015, 0, height / 2), size=(0.03, depth, height), material=body),
        shape("box", at=(width / 2 - 0.015, 0, height / 2), size=(0.03, depth, height), material=body),
    ]
    heights = np.linspace(0.05, height - 0.015, count + 1)
    parts += [shape("box", at=(0, 0, z), size=(width - 0.06, depth, 0.03), material=body) for z in heights]
    spots = tuple(Surface(x=0, y=-0.02, z=z + 0.015, width=width - 0.08, depth=depth - 0.06) for z in heights[1:-1])
    name = "bookshelf" if rng.random() < 0.5 else "shelf"
    return Thing(name=name, shapes=tuple(parts), size=(width, depth, height), surfaces=spots)


def floor_lamp(rng: Rng) -> Thing:
    """Foot, pole, shade."""
    height, metal = rng.uniform(1.3, 1.6), paint(rng, light=0.35)
    shade = replace(paint(rng, dark=0.6), glow=0.35)
    parts = (
        shape("cylinder", at=(0, 0, 0.015), size=(0.3, 0.3, 0.03), material=metal),
        shape("cylinder", at=(0, 0, height / 2), size=(0.03, 0.03, height), material=metal),
        shape("cylinder", at=(0, 0, height), size=(0.38, 0.38, 0.28), material=shade),
    )
    return Thing(name="lamp", shapes=parts, size=(0.38, 0.38, height + 0.15))


def round_thing(rng: Rng) -> Thing:
    """Cylinders and balls that stand on the floor."""
    name = ("trash can", "stool", "ottoman", "laundry basket", "ball", "bucket", "bag")[rng.integers(7)]
    width, height = rng.uniform(0.28, 0.45), rng.uniform(0.3, 0.5)
    skin = paint(rng)
    if name in ("ball", "bag"):
        height = width if name == "ball" else height
        parts: tuple[Shape, ...] = (
            shape("ellipsoid", at=(0, 0, height / 2), size=(width, width, height), material=skin),
        )
    elif name == "stool":
        parts = (
            shape("cylinder", at=(0, 0, height), size=(width, width, 0.05), material=skin),
            *_legs(width * 0.7, width * 0.7, height, wood(rng), thick=0.035),
        )
    else:
        width += 0.2 if name == "ottoman" else 0
        parts = (
            shape("cylinder", at=(0, 0, height / 2), size=(width, width, height), material=skin),
            shape("cylinder", at=(0, 0, height), size=(width * 0.86, width * 0.86, 0.012),
                  material=paint(rng, light=0.25) if name != "ottoman" else skin),
        )  # fmt: skip
    return Thing(name=name, shapes=parts, size=(width, width, height))


def plant(rng: Rng) -> Thing:
    """A pot and leaves."""
    pot, tall = rng.uniform(0.22, 0.36), rng.uniform(0.35, 0.7)
    green = Material(colour=(rng.uniform(0.1, 0.25), rng.uniform(0.32, 0.5), rng.uniform(0.08, 0.2)))
    parts = [shape("cylinder", at=(0, 0, pot / 2), size=(pot, pot, pot), material=paint(rng))]
    for _ in range(int(rng.integers(4, 8))):
        angle, lean = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.13)
        at = (lean * np.cos(angle), lean * np.sin(angle), pot + rng.uniform(0.15, 0.95) * tall)
        size = (rng.uniform(0.12, 0.3), rng.uniform(0.05, 0.14), rng.uniform(0.25, 0.5) * tall)
        tone = _triple(np.array(green.colour) * rng.uniform(0.7, 1.25))
        leaf = replace(green, colour=tone)
        parts.append(shape("ellipsoid", at=at, size=size, material=leaf, yaw=angle, tilt=rng.uniform(-0.6, 0.6)))
    return Thing(name="plant", shapes=tuple(parts), size=(0.45, 0.45, pot + tall))


def box(rng: Rng) -> Thing:
    """A single carton, suitcase or bin."""
    name = ("box", "suitcase", "storage bin", "speaker")[rng.integers(4)]
    size = (rng.uniform(0.3, 0.6), rng.uniform(0.25, 0.5), rng.uniform(0.25, 0.6))
    cardboard = Material(colour=(0.62, 0.47, 0.31), pattern="wood", period_m=0.5, contrast=(0.02, 0.02, 0.02))
    skin = cardboard if name == "box" and rng.random() < 0.5 else paint(rng)
    return Thing(name=name, shapes=(shape("box", at=(0, 0, size[2] / 2), size=size, material=skin),), size=size)


FLOOR_THINGS: tuple[tuple[Callable[[Rng], Thing], float, bool], ...] = (
    (table, 2.0, False), (chair, 2.5, False), (office_chair, 1.0, False), (couch, 1.2, True), (bed, 0.8, True),
    (cabinet, 2.0, True), (bookshelf, 1.2, True), (floor_lamp, 0.8, True), (round_thing, 2.0, False),
    (plant, 1.0, True), (box, 1.5, False),
)  # fmt: skip
"""Maker, how often, and whether it stands at a wall."""
LARGE_THINGS: tuple[Callable[[Rng], Thing], ...] = (table, couch, bed, cabinet, bookshelf)
"""What a room gets first, while there is space."""


def _legs(width: float, depth: float, height: float, material: Material, *, thick: float) -> list[Shape]:
    x, y = width / 2 - thick / 2, depth / 2 - thick / 2
    return [
        shape("box", at=(sx * x, sy * y, height / 2), size=(thick, thick, height), material=material)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
