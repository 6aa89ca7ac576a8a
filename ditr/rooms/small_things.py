"""Things that lie on tables and shelves, or hang at walls; same frames as furniture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ditr.rooms.furniture import Rng, Thing, paint, wood
from ditr.rooms.shapes import Shape, shape
from ditr.rooms.textures import Material

BLACK = Material(colour=(0.05, 0.05, 0.06))
WHITE = Material(colour=(0.88, 0.88, 0.86))


def surface_thing(rng: Rng, *, width: float, depth: float) -> Thing:
    """Something that fits on ``width`` x ``depth`` metres."""
    large = [name for name in ("monitor", "laptop", "lamp", "pillow", "plant") if width > 0.5 and depth > 0.3]
    names = ["book", "box", "bottle", "bag", "book", *large, *large]
    name = names[rng.integers(len(names))]
    if name == "monitor":
        return _monitor(rng)
    if name == "laptop":
        return _laptop(rng)
    if name == "lamp":
        return _table_lamp(rng)
    if name == "pillow":
        return _pillow(rng)
    if name == "plant":
        return _small_plant(rng)
    if name == "bottle":
        return _bottle(rng)
    if name == "bag":
        size = (rng.uniform(0.25, 0.38), rng.uniform(0.15, 0.22), rng.uniform(0.2, 0.32))
        return Thing(name=name, shapes=(shape("ellipsoid", at=(0, 0, size[2] / 2), size=size, material=paint(rng)),),
                     size=size)  # fmt: skip
    if name == "box":
        size = (rng.uniform(0.18, 0.36), rng.uniform(0.14, 0.24), rng.uniform(0.1, 0.26))
    else:
        size = (rng.uniform(0.2, 0.3), rng.uniform(0.16, 0.22), rng.uniform(0.03, 0.2))
    return Thing(name=name, shapes=(shape("box", at=(0, 0, size[2] / 2), size=size, material=paint(rng)),), size=size)


def wall_thing(rng: Rng) -> Thing:
    """Something flat that hangs at a wall: its back at y = 0, its bottom at z = 0."""
    name = ("picture", "window", "whiteboard", "clock", "tv", "poster", "mirror", "curtain")[rng.integers(8)]
    width, height = rng.uniform(0.4, 1.1), rng.uniform(0.4, 0.9)
    thick = 0.03
    if name == "clock":
        width = height = rng.uniform(0.28, 0.4)
        face = shape("cylinder", at=(0, -0.02, height / 2), size=(width, height, 0.04), material=WHITE, tilt=np.pi / 2)
        return Thing(name=name, shapes=(face,), size=(width, 0.04, height))
    if name == "window":
        sky = Material(colour=(0.7, 0.82, 0.95), glow=0.6)
        parts = [
            _panel(width + 0.1, height + 0.1, thick, WHITE, lift=0.0),
            _panel(width, height, 0.035, sky, lift=0.05),
        ]
        parts.append(shape("box", at=(0, -0.02, height / 2 + 0.05), size=(0.04, 0.05, height), material=WHITE))
        return Thing(name=name, shapes=tuple(parts), size=(width + 0.1, thick, height + 0.1))
    if name == "curtain":
        cloth, height = paint(rng), rng.uniform(1.4, 1.9)
        folds = [
            shape("cylinder", at=(x, -0.05, height / 2), size=(0.12, 0.1, height), material=cloth)
            for x in np.arange(-width / 2 + 0.06, width / 2, 0.1)
        ]
        return Thing(name=name, shapes=tuple(folds), size=(width, 0.1, height))
    skin = {
        "whiteboard": WHITE,
        "tv": BLACK,
        "mirror": Material(colour=(0.6, 0.65, 0.68)),
    }.get(name) or paint(rng)
    frame = wood(rng) if name in ("picture", "mirror") else replace(BLACK, colour=(0.2, 0.2, 0.2))
    rim = 0.0 if name == "poster" else 0.03
    shapes = [_panel(width, height, thick + 0.004, skin, lift=rim)]
    if rim:
        shapes.append(_panel(width + 2 * rim, height + 2 * rim, thick, frame, lift=0.0))
    return Thing(name=name, shapes=tuple(shapes), size=(width + 2 * rim, thick, height + 2 * rim))


def door(rng: Rng) -> Thing:
    """A closed door with a handle."""
    width, height = rng.uniform(0.8, 0.95), rng.uniform(1.95, 2.1)
    leaf = wood(rng) if rng.random() < 0.6 else paint(rng, dark=0.5)
    knob = shape("ellipsoid", at=(width / 2 - 0.08, -0.07, 1.0), size=(0.06, 0.06, 0.06), material=BLACK)
    return Thing(name="door", shapes=(_panel(width, height, 0.04, leaf, lift=0.0), knob), size=(width, 0.05, height))


def _panel(width: float, height: float, thick: float, material: Material, *, lift: float) -> Shape:
    return shape("box", at=(0, -thick / 2, lift + height / 2), size=(width, thick, height), material=material)


def _monitor(rng: Rng) -> Thing:
    width, height = rng.uniform(0.45, 0.65), rng.uniform(0.28, 0.38)
    screen = BLACK if rng.random() < 0.6 else replace(paint(rng), glow=0.3)
    parts = (
        shape("box", at=(0, 0, 0.1 + height / 2), size=(width, 0.03, height), material=BLACK),
        shape("box", at=(0, -0.016, 0.1 + height / 2), size=(width - 0.03, 0.01, height - 0.03), material=screen),
        shape("box", at=(0, 0.02, 0.06), size=(0.06, 0.03, 0.12), material=BLACK),
        shape("box", at=(0, 0, 0.008), size=(0.24, 0.17, 0.016), material=BLACK),
    )
    return Thing(name="monitor", shapes=parts, size=(width, 0.2, height + 0.1))


def _laptop(rng: Rng) -> Thing:
    metal = paint(rng, light=0.7)
    parts = (
        shape("box", at=(0, 0, 0.01), size=(0.34, 0.24, 0.02), material=metal),
        shape("box", at=(0, 0.15, 0.12), size=(0.34, 0.012, 0.23), material=metal, tilt=-0.25),
        shape("box", at=(0, 0.142, 0.12), size=(0.31, 0.01, 0.2), material=BLACK, tilt=-0.25),
    )
    return Thing(name="laptop", shapes=parts, size=(0.34, 0.34, 0.24))


def _table_lamp(rng: Rng) -> Thing:
    height, foot = rng.uniform(0.3, 0.45), paint(rng)
    parts = (
        shape("cylinder", at=(0, 0, 0.01), size=(0.16, 0.16, 0.02), material=foot),
        shape("cylinder", at=(0, 0, height / 2), size=(0.03, 0.03, height), material=foot),
        shape("cylinder", at=(0, 0, height), size=(0.26, 0.26, 0.2), material=replace(paint(rng, dark=0.6), glow=0.35)),
    )
    return Thing(name="lamp", shapes=parts, size=(0.26, 0.26, height + 0.1))


def _pillow(rng: Rng) -> Thing:
    size = (rng.uniform(0.4, 0.55), rng.uniform(0.3, 0.4), rng.uniform(0.12, 0.18))
    part = shape("ellipsoid", at=(0, 0, size[2] / 2), size=size, material=paint(rng, dark=0.3))
    return Thing(name="pillow", shapes=(part,), size=size)


def _small_plant(rng: Rng) -> Thing:
    green = Material(colour=(0.16, rng.uniform(0.35, 0.5), 0.12))
    parts = (
        shape("cylinder", at=(0, 0, 0.07), size=(0.15, 0.15, 0.14), material=paint(rng)),
        shape("ellipsoid", at=(0, 0, 0.25), size=(0.24, 0.22, 0.26), material=green),
    )
    return Thing(name="plant", shapes=parts, size=(0.24, 0.24, 0.38))


def _bottle(rng: Rng) -> Thing:
    glass = paint(rng)
    parts = (
        shape("cylinder", at=(0, 0, 0.1), size=(0.09, 0.09, 0.2), material=glass),
        shape("cylinder", at=(0, 0, 0.24), size=(0.035, 0.035, 0.08), material=glass),
    )
    return Thing(name="bottle", shapes=parts, size=(0.09, 0.09, 0.28))
