"""A room: its shell, what stands and hangs in it, its lights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from ditr.rooms.furniture import FLOOR_THINGS, LARGE_THINGS, Rng, Surface, Thing, paint, wood
from ditr.rooms.groups import Panel, panel
from ditr.rooms.shapes import Shape, rotation_z, shape
from ditr.rooms.small_things import door, surface_thing, wall_thing
from ditr.rooms.textures import Material

Rect = tuple[float, float, float, float]
MIN_THINGS, MAX_THINGS = 8, 20
_TRIES = 40
_UNANNOTATED_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Light:
    """A small lamp."""

    at: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Room:
    """Metres, origin in a lower corner, x and y along the walls, z up."""

    size: np.ndarray
    things: tuple[Thing, ...]
    """The shell (floor, ceiling, four walls), then the furniture; instance id = index + 1."""
    lights: tuple[Light, ...]
    ambient: float
    obstacles: tuple[Rect, ...]
    """Footprints (x0, x1, y0, y1) that no camera may stand in."""

    @property
    def shapes(self) -> list[Shape]:
        return [part for thing in self.things for part in thing.shapes]

    @property
    def instance_of_shape(self) -> np.ndarray:
        """(P,) int64 instance ids from 1; 0 where nobody annotated the thing."""
        ids = [index + 1 if thing.annotated else 0 for index, thing in enumerate(self.things)]
        return np.repeat(ids, [len(thing.shapes) for thing in self.things])


SHELL = 6
"""How many of a room's things are its shell."""


def furnish(rng: Rng, *, texture_share: float) -> Room:
    """A random room of 8 to 20 things, of which about ``texture_share`` belong to texture-only groups."""
    wanted = int(rng.integers(10, MAX_THINGS + 1))
    plan = _Plan(rng=rng, size=rng.uniform([3.6, 3.4, 2.4], [5.8, 5.0, 2.8]))
    if rng.random() < 0.7:
        plan.hang((door(rng),), door(rng).size, low=0.0)
    for maker in rng.permutation(len(LARGE_THINGS))[:3]:
        thing = LARGE_THINGS[maker](rng)
        plan.stand((thing,), thing.size, at_wall=True)
    _add_groups(plan, round(texture_share * wanted))
    decoys = int(rng.integers(1, 3))
    for _ in range(decoys):
        plan.place(panel(rng, count=1, group=0))
    while len(plan.things) < wanted and plan.tries < 400:
        _add_one(plan)
    warm = rng.uniform(-0.08, 0.08, 3)
    lights = tuple(
        Light(at=plan.size * np.append(rng.uniform(0.15, 0.85, 2), 0.95), colour=rng.uniform(0.5, 0.8) * (1 + warm))
        for _ in range(int(rng.integers(1, 4)))
    )
    return Room(
        size=plan.size,
        things=(*_shell(rng, plan.size), *plan.things),
        lights=lights,
        ambient=rng.uniform(0.32, 0.45),
        obstacles=tuple(plan.obstacles),
    )


@dataclass(kw_only=True)
class _Plan:
    """What is placed so far."""

    rng: Rng
    size: np.ndarray
    things: list[Thing] = field(default_factory=list)
    obstacles: list[Rect] = field(default_factory=list)
    floor: list[Rect] = field(default_factory=list)
    walls: list[list[Rect]] = field(default_factory=lambda: [[], [], [], []])
    spots: list[tuple[Surface, np.ndarray, np.ndarray]] = field(default_factory=list)
    tries: int = 0

    def place(self, made: Panel) -> bool:
        if made.place == "hung":
            low = self.rng.uniform(0.7, max(0.75, min(1.2, self.size[2] - made.size[2] - 0.15)))
            return self.hang(made.things, made.size, low=low)
        return self.stand(made.things, made.size, at_wall=made.place == "at_wall")

    def hang(self, things: Iterable[Thing], size: tuple[float, float, float], *, low: float) -> bool:
        for _ in range(_TRIES):
            wall = int(self.rng.integers(4))
            length = self._wall_length(wall)
            if length < size[0] + 0.3 or low + size[2] > self.size[2] - 0.05:
                continue
            at = self.rng.uniform(size[0] / 2 + 0.1, length - size[0] / 2 - 0.1)
            taken = (at - size[0] / 2, at + size[0] / 2, low, low + size[2])
            if any(_overlap(taken, other, margin=0.08) for other in self.walls[wall]):
                continue
            self.walls[wall].append(taken)
            turn, shift = self._at_wall(wall, at, inset=0.0)
            self.things += [thing.moved(turn, shift + np.array([0, 0, low])) for thing in things]
            return True
        return False

    def stand(self, things: tuple[Thing, ...], size: tuple[float, float, float], *, at_wall: bool) -> bool:
        for _ in range(_TRIES):
            if at_wall:
                wall = int(self.rng.integers(4))
                length = self._wall_length(wall)
                if length < size[0] + 0.1:
                    continue
                along = self.rng.uniform(size[0] / 2 + 0.05, length - size[0] / 2 - 0.05)
                turn, shift = self._at_wall(wall, along, inset=size[1] / 2 + 0.01)
                upright = (along - size[0] / 2, along + size[0] / 2, 0.0, size[2])
                if any(_overlap(upright, other, margin=0.02) for other in self.walls[wall]):
                    continue
            else:
                wall, upright = -1, (0.0, 0.0, 0.0, 0.0)
                turn = rotation_z(self.rng.integers(4) * np.pi / 2 + self.rng.uniform(-0.4, 0.4))
                shift = self.size * np.append(self.rng.uniform(0.1, 0.9, 2), 0)
            taken = _footprint(turn, shift, size)
            inside = taken[0] > 0 and taken[1] < self.size[0] and taken[2] > 0 and taken[3] < self.size[1]
            if not inside or any(_overlap(taken, other, margin=0.03) for other in self.floor):
                continue
            self.floor.append(taken)
            if wall >= 0:
                self.walls[wall].append(upright)
            if size[2] > 0.1:
                self.obstacles.append(taken)
            self.things += [thing.moved(turn, shift) for thing in things]
            self.spots += [(spot, turn, shift) for thing in things for spot in thing.surfaces]
            return True
        return False

    def lay(self) -> bool:
        """Puts something on a free spot of a table, shelf or bed."""
        if not self.spots:
            return False
        spot, turn, shift = self.spots.pop(int(self.rng.integers(len(self.spots))))
        thing = surface_thing(self.rng, width=spot.width, depth=spot.depth)
        if thing.size[0] > spot.width or thing.size[1] > spot.depth + 0.1:
            return False
        left = self.rng.uniform(-1, 1) * (spot.width - thing.size[0]) / 2
        away = self.rng.uniform(-1, 1) * max(0.0, spot.depth - thing.size[1]) / 2
        offset = np.array([spot.x + left, spot.y + away, spot.z])
        annotated = bool(self.rng.random() > _UNANNOTATED_SHARE)
        self.things.append(replace(thing.moved(turn, turn @ offset + shift), annotated=annotated))
        self.spots += [
            (rest, turn, shift)
            for rest in (_rest(spot, -spot.width / 2, left - thing.size[0] / 2),
                         _rest(spot, left + thing.size[0] / 2, spot.width / 2))
            if rest.width > 0.15
        ]  # fmt: skip
        return True

    def _wall_length(self, wall: int) -> float:
        return float(self.size[0] if wall % 2 == 0 else self.size[1])

    def _at_wall(self, wall: int, along: float, *, inset: float) -> tuple[np.ndarray, np.ndarray]:
        """Turn and shift that bring a thing's back (+y) to a wall: 0 is y = depth, then counter-clockwise."""
        width, depth, _ = self.size
        shift = (
            (along, depth - inset, 0), (inset, along, 0), (along, inset, 0), (width - inset, along, 0),
        )[wall]  # fmt: skip
        return rotation_z(wall * np.pi / 2), np.array(shift, dtype=np.float64)


def _add_groups(plan: _Plan, wanted: int) -> None:
    group, done = 0, 0
    while wanted - done >= 2 and plan.tries < 60:
        plan.tries += 1
        left = wanted - done
        count = left if left in (2, 3) else 2 + int(plan.rng.random() < 0.45)
        if plan.place(panel(plan.rng, count=count, group=group + 1)):
            group, done = group + 1, done + count


def _add_one(plan: _Plan) -> None:
    plan.tries += 1
    kind = plan.rng.random()
    if kind < 0.45 and plan.lay():
        return
    if kind < 0.57:
        thing = wall_thing(plan.rng)
        low = plan.rng.uniform(0.8, 1.2) if thing.size[2] < 1.2 else plan.rng.uniform(0.1, 0.4)
        plan.hang((thing,), thing.size, low=low)
        return
    odds = np.array([weight for _, weight, _ in FLOOR_THINGS])
    maker, _, at_wall = FLOOR_THINGS[plan.rng.choice(len(odds), p=odds / odds.sum())]
    thing = maker(plan.rng)
    plan.stand((thing,), thing.size, at_wall=at_wall or plan.rng.random() < 0.3)


def _shell(rng: Rng, size: np.ndarray) -> tuple[Thing, ...]:
    width, depth, height = (float(v) for v in size)
    tone = rng.uniform(0.55, 0.85) * (1 + rng.normal(0, 0.04, 3))
    walls = [Material(colour=tuple(np.clip(tone * rng.uniform(0.93, 1.04), 0, 0.95))) for _ in range(4)]
    if rng.random() < 0.4:
        walls[rng.integers(4)] = replace(paint(rng, dark=0.3), pattern="plain")
    if rng.random() < 0.6:
        floor = replace(wood(rng), pattern="planks", period_m=0.12)
    else:
        grey = rng.uniform(0.3, 0.65) * (1 + rng.normal(0, 0.05, 3))
        floor = Material(
            colour=tuple(grey), pattern="tiles", period_m=rng.uniform(0.25, 0.4), contrast=tuple(0.05 * grey)
        )
    thick, ceiling = 0.1, Material(colour=(0.88, 0.88, 0.86))
    spans = (
        ("floor", (width / 2, depth / 2, -thick / 2), (width + 1, depth + 1, thick), floor),
        ("ceiling", (width / 2, depth / 2, height + thick / 2), (width + 1, depth + 1, thick), ceiling),
        ("wall", (width / 2, depth + thick / 2, height / 2), (width + 1, thick, height + 1), walls[0]),
        ("wall", (-thick / 2, depth / 2, height / 2), (thick, depth + 1, height + 1), walls[1]),
        ("wall", (width / 2, -thick / 2, height / 2), (width + 1, thick, height + 1), walls[2]),
        ("wall", (width + thick / 2, depth / 2, height / 2), (thick, depth + 1, height + 1), walls[3]),
    )
    return tuple(
        Thing(name=name, shapes=(shape("box", at=at, size=extent, material=skin),), size=extent)
        for name, at, extent, skin in spans
    )


def _footprint(turn: np.ndarray, shift: np.ndarray, size: tuple[float, float, float]) -> Rect:
    reach = np.abs(turn[:2, :2]) @ (np.array(size[:2]) / 2)
    return (shift[0] - reach[0], shift[0] + reach[0], shift[1] - reach[1], shift[1] + reach[1])


def _rest(spot: Surface, left: float, right: float) -> Surface:
    return replace(spot, x=spot.x + (left + right) / 2, width=right - left - 0.02)


def _overlap(a: Rect, b: Rect, *, margin: float) -> bool:
    return a[0] < b[1] + margin and b[0] < a[1] + margin and a[2] < b[3] + margin and b[2] < a[3] + margin
