"""Ray casting: which shape each pixel sees, how far, and in what light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ditr.geometry.camera import Intrinsics
from ditr.rooms.room import Light, Room
from ditr.rooms.shapes import Shape, intersect, local_normals
from ditr.rooms.textures import albedo

_NEAR_M = 0.05


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What the rays of an H x W image meet."""

    depth_m: np.ndarray
    """(H, W) float32 z-depth; inf where a ray leaves the room."""
    shape: np.ndarray
    """(H, W) int16 index into the shapes, -1 where there is none."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A rendered image without a sensor's faults."""

    hits: Hits
    colour: np.ndarray
    """(H, W, 3) float32, 0..1, before noise."""
    facing: np.ndarray
    """(H, W) float32 cosine between surface normal and ray."""


def cast(shapes: list[Shape], *, pose_c2w: np.ndarray, intrinsics: Intrinsics) -> Hits:
    """Nearest shape of every pixel, seen from ``pose_c2w`` (4, 4), camera to room."""
    height, width = intrinsics.height, intrinsics.width
    x = ((np.arange(width) - intrinsics.cx) / intrinsics.fx).astype(np.float32)[None, :]
    y = ((np.arange(height) - intrinsics.cy) / intrinsics.fy).astype(np.float32)[:, None]
    depth = np.full((height, width), np.inf, dtype=np.float32)
    index = np.full((height, width), -1, dtype=np.int16)
    for number, item in enumerate(shapes):
        window = _window(item, pose_c2w, intrinsics)
        if window is None:
            continue
        rows, columns = window
        turn, origin = _into_own_axes(item, pose_c2w)
        m = turn.astype(np.float32)
        directions = [m[k, 0] * x[:, columns] + (m[k, 1] * y[rows] + m[k, 2]) for k in range(3)]
        enter = intersect(item.kind, origin, directions)
        nearer = enter < depth[rows, columns]
        np.copyto(depth[rows, columns], enter, where=nearer)
        np.copyto(index[rows, columns], np.int16(number), where=nearer)
    return Hits(depth_m=depth, shape=index)


def render(room: Room, *, pose_c2w: np.ndarray, intrinsics: Intrinsics) -> View:
    """Colours of what ``cast`` sees: albedo, lamps with falloff, darker where things stand on the floor."""
    shapes = room.shapes
    hits = cast(shapes, pose_c2w=pose_c2w, intrinsics=intrinsics)
    flat = hits.shape.ravel()
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(len(shapes) + 1))
    colour = np.zeros((flat.size, 3), dtype=np.float32)
    facing = np.zeros(flat.size, dtype=np.float32)
    for number, item in enumerate(shapes):
        pixels = order[starts[number] : starts[number + 1]]
        if len(pixels):
            points = _camera_points(pixels, hits.depth_m, intrinsics)
            colour[pixels], facing[pixels] = _shade(item, points, pose_c2w, room, intrinsics)
    size = hits.shape.shape
    return View(hits=hits, colour=colour.reshape(*size, 3), facing=facing.reshape(size))


def _camera_points(pixels: np.ndarray, depth: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    v, u = np.divmod(pixels, intrinsics.width)
    z = depth.ravel()[pixels]
    x = (u - intrinsics.cx) / intrinsics.fx * z
    y = (v - intrinsics.cy) / intrinsics.fy * z
    return np.stack([x, y, z], axis=1).astype(np.float32)


def _shade(
    item: Shape, points: np.ndarray, pose_c2w: np.ndarray, room: Room, intrinsics: Intrinsics
) -> tuple[np.ndarray, np.ndarray]:
    turn, origin = _into_own_axes(item, pose_c2w)
    own = points @ turn.T.astype(np.float32) + origin.astype(np.float32)
    own_normals = local_normals(item.kind, own)
    normals = (own_normals / item.half.astype(np.float32)) @ item.rotation.T.astype(np.float32)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    rays = points @ pose_c2w[:3, :3].T.astype(np.float32)
    distance = np.linalg.norm(rays, axis=1)
    facing = np.clip(-(rays * normals).sum(axis=1) / distance, 0, 1)
    here = rays + pose_c2w[:3, 3].astype(np.float32)
    light = np.full((len(points), 3), room.ambient, dtype=np.float32)
    light += np.where(normals[:, 2:3] < 0, np.float32(-0.3), np.float32(0.08)) * normals[:, 2:3]  # the floor's glow
    for lamp in room.lights:
        light += _lit(lamp, here, normals)
    light *= _contact(room, here)[:, None]
    surface = _surface_coordinates(item, own, own_normals)
    base = albedo(item.material, surface, points[:, 2] / np.float32(intrinsics.fx) / np.maximum(facing, 0.3))
    return base * (light * (1 - item.material.glow) + item.material.glow), facing


def _lit(lamp: Light, here: np.ndarray, normals: np.ndarray) -> np.ndarray:
    toward = lamp.at.astype(np.float32) - here
    squared = (toward * toward).sum(axis=1)
    cosine = np.maximum((toward * normals).sum(axis=1), 0) / np.sqrt(squared)
    return np.asarray((cosine / (1 + squared / 6.0))[:, None] * lamp.colour.astype(np.float32))


def _contact(room: Room, here: np.ndarray) -> np.ndarray:
    """(n,) darkening: corners of the room, and the floor around what stands on it."""
    size = room.size.astype(np.float32)
    gaps = np.minimum(here, size - here)
    factor = np.prod(1 - 0.14 * np.exp(-np.maximum(gaps, 0) / 0.25), axis=1)
    low = here[:, 2] < 0.02
    if low.any():
        x, y = here[low, 0], here[low, 1]
        dark = np.ones(len(x), dtype=np.float32)
        for x0, x1, y0, y1 in room.obstacles:
            dx = np.maximum(np.maximum(x0 - x, x - x1), 0)
            dy = np.maximum(np.maximum(y0 - y, y - y1), 0)
            dark = np.minimum(dark, 1 - 0.42 * np.exp(-np.hypot(dx, dy) / 0.12))
        factor[low] *= dark
    return np.asarray(factor)


def _surface_coordinates(item: Shape, own: np.ndarray, own_normals: np.ndarray) -> np.ndarray:
    """(n, 2) metres along the surface: across and up."""
    metres = own * item.half.astype(np.float32)
    if item.kind == "box":
        axis = np.abs(own_normals).argmax(axis=1)
        across = np.where(axis == 0, metres[:, 1], metres[:, 0])
        up = np.where(axis == 2, metres[:, 1], metres[:, 2])
        return np.stack([across, up], axis=1)
    around = np.arctan2(own[:, 1], own[:, 0]) * np.float32(item.half[:2].mean())
    cap = np.abs(own_normals[:, 2]) > 0.99
    return np.stack([np.where(cap, metres[:, 0], around), np.where(cap, metres[:, 1], metres[:, 2])], axis=1)


def _into_own_axes(item: Shape, pose_c2w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3, 3) and (3,) that take camera points into the axes in which the shape is a unit shape."""
    inverse = item.rotation.T / item.half[:, None]
    return inverse @ pose_c2w[:3, :3], inverse @ (pose_c2w[:3, 3] - item.centre)


def _window(item: Shape, pose_c2w: np.ndarray, intrinsics: Intrinsics) -> tuple[slice, slice] | None:
    """Rows and columns that the shape can cover; None if it is behind the camera or outside the image."""
    seen = (item.corners() - pose_c2w[:3, 3]) @ pose_c2w[:3, :3]
    z = seen[:, 2]
    if z.max() <= _NEAR_M:
        return None
    if z.min() <= _NEAR_M:
        return slice(0, intrinsics.height), slice(0, intrinsics.width)
    u = intrinsics.fx * seen[:, 0] / z + intrinsics.cx
    v = intrinsics.fy * seen[:, 1] / z + intrinsics.cy
    left, right = max(0, int(np.floor(u.min()))), min(intrinsics.width, int(np.ceil(u.max())) + 1)
    top, bottom = max(0, int(np.floor(v.min()))), min(intrinsics.height, int(np.ceil(v.max())) + 1)
    if left >= right or top >= bottom:
        return None
    return slice(top, bottom), slice(left, right)
