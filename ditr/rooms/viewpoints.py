"""Where cameras stand and look."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ditr.data.scannet_sv import POINT_COUNT
from ditr.errors import Code, DitrError
from ditr.geometry.camera import SCANNET_SV_INTRINSICS, Intrinsics
from ditr.rooms.render import cast
from ditr.rooms.room import SHELL, Room
from ditr.seeds import derive_seed

_TRIES = 200
_TRIES_A_TARGET = 50
_COARSE = 8
_CANDIDATES = 4
_STEPS = 9
_LENGTH_M = (0.8, 2.2)
_TURN = (0.5, 1.9)
MIN_THINGS = 3
MIN_POINTS = 100


def choose_viewpoint(room: Room, *, seed: int) -> np.ndarray:
    """(4, 4) camera to room: inside it at 1.2 to 1.8 m, at least three things with 100 of 20,000 points in view.

    It looks at a thing drawn for it, so that the views of a room differ; of the first few such views it is the one that
    shows most things.
    """
    found: list[tuple[int, int, np.ndarray]] = []
    for attempt in range(_TRIES):
        rng = np.random.default_rng(derive_seed(seed, "viewpoint", attempt))
        eye = np.append(room.size[:2] * rng.uniform(0.08, 0.92, 2), rng.uniform(1.2, 1.8))
        if not _free(room, eye):
            continue
        aim = np.random.default_rng(derive_seed(seed, "target", attempt // _TRIES_A_TARGET))
        target = _target(room, aim)
        if not 1.6 < np.linalg.norm(target - eye) < 4.2:
            continue
        pose = look_at(eye, target, roll=rng.normal(0, 0.03))
        if (count := _things_in_view(room, pose)) >= MIN_THINGS:
            found.append((count, -attempt, pose))
        if len(found) == _CANDIDATES:
            break
    if not found:
        raise DitrError(
            f"no viewpoint in {_TRIES} tries shows {MIN_THINGS} things", code=Code.DATASET, fix="choose another seed"
        )
    return max(found, key=lambda view: view[:2])[2]


@dataclass(frozen=True, kw_only=True)
class Path:
    """A camera that is carried straight from one place to another, and looks from one target to another meanwhile."""

    eyes: tuple[np.ndarray, np.ndarray]
    """(3,) metres in the room, where it begins and where it ends; so are the targets."""
    targets: tuple[np.ndarray, np.ndarray]

    def pose(self, share: float) -> np.ndarray:
        """(4, 4) camera to room, ``share`` of the way behind it: slow at both ends, with a hand's slight roll."""
        eased = share * share * (3 - 2 * share)
        eye, target = (ends[0] + eased * (ends[1] - ends[0]) for ends in (self.eyes, self.targets))
        return look_at(eye, target, roll=0.03 * np.sin(2 * np.pi * share))


def choose_path(room: Room, *, seed: int) -> Path:
    """A path of 0.8 to 2.2 m that turns by 30 to 110 degrees, whose camera is everywhere as good as a viewpoint's.

    Of the first few such paths it is the one on which most things are in view.
    """
    found: list[tuple[int, int, Path]] = []
    for attempt in range(_TRIES * _TRIES_A_TARGET):
        rng = np.random.default_rng(derive_seed(seed, "path", attempt))
        first, last = (np.append(room.size[:2] * rng.uniform(0.08, 0.92, 2), rng.uniform(1.2, 1.8)) for _ in range(2))
        if not _LENGTH_M[0] < np.linalg.norm(last - first) < _LENGTH_M[1]:
            continue
        path = Path(eyes=(first, last), targets=(_target(room, rng), _target(room, rng)))
        poses = [path.pose(share) for share in np.linspace(0, 1, _STEPS)]
        turn = np.arccos(np.clip(poses[0][:3, 2] @ poses[-1][:3, 2], -1, 1))
        if not _TURN[0] < turn < _TURN[1] or not all(_free(room, pose[:3, 3]) for pose in poses):
            continue
        counts = [_things_in_view(room, pose) for pose in poses]
        if min(counts) >= MIN_THINGS:
            found.append((sum(counts), -attempt, path))
        if len(found) == _CANDIDATES:
            break
    if not found:
        what = f"no path of a camera shows {MIN_THINGS} things everywhere"
        raise DitrError(what, code=Code.DATASET, fix="choose another seed")
    return max(found, key=lambda path: path[:2])[2]


def look_at(eye: np.ndarray, target: np.ndarray, *, roll: float = 0.0) -> np.ndarray:
    """(4, 4) pose of a camera at ``eye`` whose z axis points to ``target``; x right, y down, turned by ``roll``."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([c * right + s * down, -s * right + c * down, forward], axis=1)
    pose[:3, 3] = eye
    return pose


def _free(room: Room, eye: np.ndarray) -> bool:
    x, y = eye[:2]
    return not any(x0 - 0.2 < x < x1 + 0.2 and y0 - 0.2 < y < y1 + 0.2 for x0, x1, y0, y1 in room.obstacles)


def _target(room: Room, rng: np.random.Generator) -> np.ndarray:
    """Near the middle of a thing, in most frames one of a group."""
    things = room.things[SHELL:]
    grouped = [thing for thing in things if thing.group]
    pool = grouped if grouped and rng.random() < 0.45 else things
    thing = pool[rng.integers(len(pool))]
    corners = np.concatenate([part.corners() for part in thing.shapes])
    return np.asarray((corners.min(axis=0) + corners.max(axis=0)) / 2 + rng.normal(0, 0.25, 3))


def _things_in_view(room: Room, pose_c2w: np.ndarray) -> int:
    """How many annotated things get the points they need; 0 if something blocks the view."""
    hits = cast(room.shapes, pose_c2w=pose_c2w, intrinsics=_coarse(SCANNET_SV_INTRINSICS))
    if np.quantile(hits.depth_m, 0.1) < 0.6:
        return 0
    seen = hits.shape[hits.shape >= 0]
    points = np.bincount(room.instance_of_shape[seen], minlength=len(room.things) + 1) * POINT_COUNT / seen.size
    return int(np.sum(points[SHELL + 1 :] >= 1.3 * MIN_POINTS))


def _coarse(intrinsics: Intrinsics) -> Intrinsics:
    return replace(
        intrinsics,
        fx=intrinsics.fx / _COARSE,
        fy=intrinsics.fy / _COARSE,
        cx=(intrinsics.cx + 0.5) / _COARSE - 0.5,
        cy=(intrinsics.cy + 0.5) / _COARSE - 0.5,
        width=intrinsics.width // _COARSE,
        height=intrinsics.height // _COARSE,
    )
