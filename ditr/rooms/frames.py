"""One frame from its seed to its files (docs/reference/esam.md, Making a frame; Files of a frame)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ditr.data.classes import raw_id_on_disk
from ditr.data.scannet_sv import INSTANCES, POINT_COUNT, POINTS, SEMANTICS, SUPERPOINTS, stored_pose_path
from ditr.geometry.camera import SCANNET_SV_INTRINSICS, backproject
from ditr.geometry.oversegmentation import oversegment
from ditr.rooms.render import View, render
from ditr.rooms.room import Room, furnish
from ditr.rooms.sensor import sense_colour, sense_depth
from ditr.rooms.shapes import rotation_z
from ditr.rooms.viewpoints import MIN_POINTS, choose_path, choose_viewpoint
from ditr.seeds import derive_seed

_JPEG_QUALITY = 92
FRAME_STEP = 200
"""Frame numbers are multiples of this, as in ScanNet200-SV."""


@dataclass(frozen=True, kw_only=True)
class FrameTask:
    """What decides every byte of a frame."""

    root: Path
    scene: int
    index: int
    seed: int
    texture_share: float
    path_share: float | None = None
    """How much of the scene's camera path lies behind it, 0 to 1; None of a viewpoint of its own."""

    @property
    def scene_name(self) -> str:
        return f"scene{self.scene:04d}_00"

    @property
    def id(self) -> str:
        return f"{self.scene_name}_{self.index * FRAME_STEP}"


@dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """What the info pickles and the manifest say of a frame; plain values, the same from every process."""

    id: str
    pose_centered: list[list[float]]
    axis_align: list[list[float]]
    statistics: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Shot:
    """What a camera took of a room, and what it took it of."""

    room: Room
    to_world: np.ndarray
    """(4, 4) room to world."""
    room_pose: np.ndarray
    """(4, 4) camera to room."""
    view: View
    jpeg: bytes
    depth_mm: np.ndarray
    """(H, W) uint16, 0 = missing."""

    @property
    def colour(self) -> np.ndarray:
        """(H, W, 3) uint8, as everyone reads it from the JPEG."""
        return np.asarray(Image.open(io.BytesIO(self.jpeg)))


def make_frame(task: FrameTask) -> FrameRecord:
    """Renders the frame and writes its files below ``task.root``."""
    shot = shoot(task)
    pose = shot.to_world @ shot.room_pose
    _write_images(task, shot.jpeg, shot.depth_mm, pose)
    return _write_points(
        task,
        shot.room,
        shot.view,
        colour=shot.colour,
        depth_mm=shot.depth_mm,
        pose=pose,
        to_world=shot.to_world,
    )


def shoot(task: FrameTask) -> Shot:
    """Furnishes the room, finds a viewpoint, renders it with a camera's faults; writes nothing."""
    room_rng = np.random.default_rng(derive_seed(task.seed, "room", task.scene))
    room = furnish(room_rng, texture_share=task.texture_share)
    to_world = np.eye(4)
    to_world[:3, :3] = rotation_z(room_rng.uniform(0, 2 * np.pi))
    to_world[:3, 3] = room_rng.uniform(-2, 2, 3)
    if task.path_share is None:
        room_pose = choose_viewpoint(room, seed=derive_seed(task.seed, "camera", task.id))
    else:
        room_pose = choose_path(room, seed=derive_seed(task.seed, "path", task.scene)).pose(task.path_share)
    view = render(room, pose_c2w=room_pose, intrinsics=SCANNET_SV_INTRINSICS)
    rng = np.random.default_rng(derive_seed(task.seed, "sensor", task.id))
    jpeg = _jpeg(sense_colour(view, rng=rng))
    depth_mm = sense_depth(view, rng=rng)
    return Shot(room=room, to_world=to_world, room_pose=room_pose, view=view, jpeg=jpeg, depth_mm=depth_mm)


def _jpeg(colour: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(colour).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _write_images(task: FrameTask, jpeg: bytes, depth_mm: np.ndarray, pose: np.ndarray) -> None:
    folder, number = task.root / "2D" / task.scene_name, task.index * FRAME_STEP
    for kind in ("color", "depth", "pose"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    (folder / "color" / f"{number}.jpg").write_bytes(jpeg)
    Image.fromarray(depth_mm).save(folder / "depth" / f"{number}.png", compress_level=1)
    np.savetxt(folder / "pose" / f"{number}.txt", pose, fmt="%.9f")


def _write_points(
    task: FrameTask,
    room: Room,
    view: View,
    *,
    colour: np.ndarray,
    depth_mm: np.ndarray,
    pose: np.ndarray,
    to_world: np.ndarray,
) -> FrameRecord:
    v, u = np.nonzero(depth_mm)
    uv = np.stack([u, v], axis=1).astype(np.float64)
    xyz = backproject(uv, depth_mm[v, u] / 1000.0, pose_c2w=pose, intrinsics=SCANNET_SV_INTRINSICS)
    offset = xyz.mean(axis=0)
    rng = np.random.default_rng(derive_seed(task.seed, "points", task.id))
    chosen = rng.choice(len(xyz), POINT_COUNT, replace=len(xyz) < POINT_COUNT)
    v, u = v[chosen], u[chosen]
    points = np.concatenate([xyz[chosen] - offset, colour[v, u]], axis=1).astype(np.float32)
    segments = oversegment(colour, depth_mm, intrinsics=SCANNET_SV_INTRINSICS)[v, u]
    superpoints = np.unique(segments, return_inverse=True)[1].astype(np.int64)
    instances = room.instance_of_shape[view.hits.shape[v, u]].astype(np.int64)
    raw_ids = np.array([0, *(raw_id_on_disk(thing.name) for thing in room.things)], dtype=np.int64)
    for kind, values in (
        (POINTS, points), (SUPERPOINTS, superpoints), (INSTANCES, instances), (SEMANTICS, raw_ids[instances]),
    ):  # fmt: skip
        (task.root / kind).mkdir(parents=True, exist_ok=True)
        (task.root / kind / f"{task.id}.bin").write_bytes(np.ascontiguousarray(values).tobytes())
    centred = pose.copy()
    centred[:3, 3] -= offset
    pose_file = stored_pose_path(task.root, task.scene_name, str(task.index * FRAME_STEP))
    pose_file.parent.mkdir(parents=True, exist_ok=True)
    np.save(pose_file, centred)
    return FrameRecord(
        id=task.id,
        pose_centered=centred.tolist(),
        axis_align=np.linalg.inv(to_world).tolist(),
        statistics=_statistics(room, instances, superpoints, depth_mm),
    )


def _statistics(room: Room, instances: np.ndarray, superpoints: np.ndarray, depth_mm: np.ndarray) -> dict[str, Any]:
    points = np.bincount(instances, minlength=len(room.things) + 1)[1:]
    large = points >= MIN_POINTS
    groups = np.array([thing.group for thing in room.things])
    members = np.bincount(groups[large], minlength=groups.max() + 1)
    members[0] = 0
    return {
        "instances": {
            str(index + 1): {"name": thing.name, "points": int(points[index])}
            for index, thing in enumerate(room.things)
            if points[index]
        },
        "texture_ids": [int(index) + 1 for index in np.flatnonzero(large & (members[groups] >= 2))],
        "superpoints": int(superpoints.max()) + 1,
        "depth_share": round(float(np.mean(depth_mm > 0)), 4),
    }
