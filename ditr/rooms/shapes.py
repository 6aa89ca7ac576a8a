"""What rooms are made of: boxes, ellipsoids, cylinders; each a unit shape that is stretched, turned and moved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ditr.rooms.textures import Material

Kind = Literal["box", "ellipsoid", "cylinder"]
_MISS = np.float32(np.inf)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A convex solid. Its unit shape fills [-1, 1]^3; a cylinder stands along z."""

    kind: Kind
    centre: np.ndarray
    """(3,) metres."""
    half: np.ndarray
    """(3,) half extents in metres, along its own axes."""
    rotation: np.ndarray
    """(3, 3) own axes as columns."""
    material: Material

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Shape:
        """The shape turned about the origin, then shifted."""
        return replace(self, centre=rotation @ self.centre + shift, rotation=rotation @ self.rotation)

    def corners(self) -> np.ndarray:
        """(8, 3) corners of its oriented bounding box."""
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
        return np.asarray(self.centre + (signs * self.half) @ self.rotation.T)


def shape(
    kind: Kind,
    *,
    at: tuple[float, float, float],
    size: tuple[float, float, float],
    material: Material,
    yaw: float = 0.0,
    tilt: float = 0.0,
) -> Shape:
    """A shape of full extents ``size`` around ``at``, turned by ``tilt`` about x, then ``yaw`` about z (radians)."""
    turn = rotation_z(yaw)
    if tilt:
        c, s = np.cos(tilt), np.sin(tilt)
        turn = turn @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return Shape(kind=kind, centre=np.array(at), half=np.array(size) / 2, rotation=turn, material=material)


def rotation_z(angle: float) -> np.ndarray:
    """(3, 3) turn about z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def intersect(kind: Kind, origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    """Where rays enter a unit shape.

    Parameters
    ----------
    origin: (3,) ray origin in the shape's own, stretched axes.
    direction: three float32 arrays that broadcast to the rays' shape; need not be unit vectors.

    Returns
    -------
    Ray parameter at the entry, same shape; inf where the ray misses or starts inside or beyond the shape.
    """
    if kind == "box":
        spans = [_slab(o, d) for o, d in zip(origin, direction, strict=True)]
    elif kind == "cylinder":
        spans = [_quadric(origin[:2], direction[:2]), _slab(origin[2], direction[2])]
    else:
        spans = [_quadric(origin, direction)]
    enter, leave = spans[0]
    for near, far in spans[1:]:
        enter = np.maximum(enter, near)
        leave = np.minimum(leave, far)
    return np.where((enter < leave) & (enter > 0), enter, _MISS)


def local_normals(kind: Kind, positions: np.ndarray) -> np.ndarray:
    """(n, 3) outward directions in own axes at points ``positions`` (n, 3) on the unit shape; of any length."""
    if kind == "ellipsoid":
        return positions
    normals = np.zeros_like(positions)
    rows = np.arange(len(positions))
    if kind == "box":
        axis = np.abs(positions).argmax(axis=1)
        normals[rows, axis] = np.sign(positions[rows, axis])
        return normals
    on_cap = np.abs(positions[:, 2]) >= np.hypot(positions[:, 0], positions[:, 1])
    normals[:, :2] = np.where(on_cap[:, None], 0, positions[:, :2])
    normals[:, 2] = np.where(on_cap, np.sign(positions[:, 2]), 0)
    return normals


def _slab(origin: float, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    safe = np.where(np.abs(direction) < 1e-9, np.float32(1e-9), direction)
    inverse = np.float32(1) / safe
    middle, reach = -np.float32(origin) * inverse, np.abs(inverse)
    return middle - reach, middle + reach


def _quadric(origin: np.ndarray, direction: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rays and the unit sphere, or with two axes the endless unit cylinder."""
    a: Any
    b: Any
    a, b = np.float32(1e-12), np.float32(0)
    for o, d in zip(origin, direction, strict=True):
        a = a + d * d
        b = b + np.float32(o) * d
    c = np.float32(np.dot(origin, origin) - 1)
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    hit = discriminant > 0
    return np.where(hit, (-b - root) / a, _MISS), np.where(hit, (-b + root) / a, -_MISS)
