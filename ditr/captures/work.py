"""What a worker process does: the frames of one scene."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ditr.captures.files import is_prepared, write_frame, write_whole
from ditr.captures.one_camera import colour_in, depth_in, labels_in
from ditr.captures.origin import different, origin_file, origin_of, read_origin
from ditr.captures.prepared_frame import Labels, Pixels, build_frame
from ditr.captures.raw_frame import PoseFile, RawFrame, Unusable
from ditr.captures.scene import RawScene
from ditr.captures.superpoints import UNCOVERED, read_mask_image
from ditr.data.scannet_sv import MAX_SUPERPOINTS, depth_path, world_pose_path
from ditr.errors import Code, DitrError
from ditr.geometry.camera import Intrinsics
from ditr.geometry.oversegmentation import oversegment
from ditr.machine_errors import MachineError

_JPEG_QUALITY = 95
_MOST_MM = 65_535


@dataclass(frozen=True, kw_only=True)
class SceneTask:
    """The frames of one scene that shall be there afterwards."""

    out: Path
    scene: RawScene
    seed: int


@dataclass(frozen=True, kw_only=True)
class FrameOutcome:
    """What became of a frame."""

    frame_id: str
    state: Literal["made", "kept", "skipped", "failed"]
    why: str = ""
    """Of a skipped or failed frame; of one that is made again, what of its capture has changed."""
    distance_m: float | None = None
    """Of a frame that was made with labels, as ``PointLabels`` has it."""


def make_scene(task: SceneTask) -> list[FrameOutcome]:
    """Makes the frames that are not there yet, or are of what the capture was before; one that cannot be made does not
    hinder the others."""
    scene, labelled = task.scene, task.scene.labels is not None
    outcomes, pending = list[FrameOutcome](), list[_Pending]()
    for frame in scene.frames:
        origin, changed = origin_of(scene, frame), ""
        if is_prepared(task.out, scene.name, frame.number, labelled=labelled):
            before = read_origin(task.out, scene.name, frame.number)
            if before == origin:
                outcomes.append(FrameOutcome(frame_id=scene.frame_id(frame), state="kept"))
                continue
            changed = different(before, origin)
        pending.append(_Pending(frame=frame, origin=origin, changed=changed))
    if not pending:
        return outcomes
    try:
        labels = None if scene.labels is None else scene.labels.read()
    except DitrError as error:
        return outcomes + [_failed(scene.frame_id(one.frame), error) for one in pending]
    return outcomes + [_make_frame(task, one, labels) for one in pending]


def image_file(scene: str, frame: RawFrame, *, camera: Intrinsics) -> str:
    """Where below the data set's folder the frame's image lies: a copy of the capture's where it has the right size."""
    suffix = frame.colour.suffix.lower() if frame.colour_camera == camera else ".jpg"
    return f"2D/{scene}/color/{frame.number}{suffix}"


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """A frame to make."""

    frame: RawFrame
    origin: Mapping[str, str]
    changed: str
    """Since it was made before; empty of one that was not."""


def _make_frame(task: SceneTask, pending: _Pending, labels: Labels | None) -> FrameOutcome:
    scene, frame = task.scene, pending.frame
    origin = origin_file(task.out, scene.name, frame.number)
    origin.unlink(missing_ok=True)  # until it is whole again
    frame_id = scene.frame_id(frame)
    try:
        raw = frame.read()
        cameras = {"source": frame.depth_camera, "target": scene.camera}
        depth_mm = np.rint(1000 * depth_in(raw.depth_m, **cameras))
        depth_mm = np.where(depth_mm <= _MOST_MM, depth_mm, 0).astype(np.uint16)
        if not depth_mm.any():
            raise Unusable("no pixel has depth")
        image = task.out / image_file(scene.name, frame, camera=scene.camera)
        colour = _kept_colour(raw.colour, frame, image, camera=scene.camera)
        pixels = Pixels(colour=colour, depth_mm=depth_mm, pose_c2w=raw.pose_c2w)
        prepared = build_frame(
            frame_id,
            pixels,
            segments=_segments(frame, pixels, scene.camera),
            camera=scene.camera,
            seed=task.seed,
            labels=labels,
        )
        _require_few(prepared.superpoints, frame)
        _write_images(task.out, scene.name, frame, pixels)
        write_frame(task.out, scene.name, frame.number, prepared)
        write_whole(origin, (json.dumps(pending.origin) + "\n").encode())
    except Unusable as unusable:
        return FrameOutcome(frame_id=frame_id, state="skipped", why=str(unusable))
    except MachineError:
        raise  # the disk is full, and not the frame wrong
    except DitrError as error:
        return _failed(frame_id, error)
    return FrameOutcome(frame_id=frame_id, state="made", why=pending.changed, distance_m=prepared.distance_m)


def _require_few(superpoints: np.ndarray, frame: RawFrame) -> None:
    """As many as the reader takes: masks may have any number of segments, an over-segmentation has a few hundred."""
    if (count := int(superpoints.max()) + 1) > MAX_SUPERPOINTS:
        what = f"{count:,} superpoints of its points, allowed are {MAX_SUPERPOINTS:,}"
        fix = "merge the smallest masks of this image, or choose --superpoints oversegmentation"
        raise DitrError(what, code=Code.DATASET, where=str(frame.masks or frame.colour), fix=fix)


def _kept_colour(colour: np.ndarray, frame: RawFrame, path: Path, *, camera: Intrinsics) -> np.ndarray:
    """Writes the image that is kept; (H, W, 3) uint8 as everyone reads it from the file."""
    if frame.colour_camera == camera:
        if not _is_same(path, frame.colour):
            write_whole(path, frame.colour.read_bytes())
        return colour
    buffer = io.BytesIO()
    seen = colour_in(colour, source=frame.colour_camera, target=camera)
    Image.fromarray(seen).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    write_whole(path, buffer.getvalue())
    return np.asarray(Image.open(buffer))


def _segments(frame: RawFrame, pixels: Pixels, camera: Intrinsics) -> np.ndarray:
    """(H, W) int64."""
    if frame.masks is None:
        return oversegment(pixels.colour, pixels.depth_mm, intrinsics=camera)
    own = frame.colour_camera
    masks = read_mask_image(frame.masks, height=own.height, width=own.width)
    return labels_in(masks, source=own, target=camera, outside=UNCOVERED)


def _write_images(out: Path, scene: str, frame: RawFrame, pixels: Pixels) -> None:
    """Depth and pose; in a folder whose ``2D`` is the capture's own, they are there."""
    depth, pose = depth_path(out, scene, frame.number), world_pose_path(out, scene, frame.number)
    if not _is_same(depth, frame.depth):
        buffer = io.BytesIO()
        Image.fromarray(pixels.depth_mm).save(buffer, "PNG", compress_level=1)
        write_whole(depth, buffer.getvalue())
    if pixels.pose_c2w is None:
        pose.unlink(missing_ok=True)
    elif not (isinstance(frame.pose, PoseFile) and _is_same(pose, frame.pose.path)):
        lines = "".join(" ".join(map(repr, row)) + "\n" for row in pixels.pose_c2w.tolist())
        write_whole(pose, lines.encode())


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and path.samefile(other)


def _failed(frame_id: str, error: DitrError) -> FrameOutcome:
    fix = f"; fix: {error.fix}" if error.fix else ""
    return FrameOutcome(frame_id=frame_id, state="failed", why=f"{error.where}: {error.what}{fix}")
