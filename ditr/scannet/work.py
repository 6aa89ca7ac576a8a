"""What a worker process does: the frames of one scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ditr.data.scene_intrinsics import intrinsics_file
from ditr.errors import DitrError
from ditr.geometry.camera import Intrinsics
from ditr.geometry.oversegmentation import oversegment
from ditr.scannet.files import is_prepared, write_frame, write_whole
from ditr.scannet.frame import build_frame
from ditr.scannet.manifest import PrepareSettings
from ditr.scannet.raw_frame import RawFrame, Unusable, read_raw_frame
from ditr.scannet.scan import Scan, read_scan
from ditr.scannet.scene_text import read_depth_intrinsics, scene_text_path
from ditr.scannet.splits import split_id
from ditr.scannet.superpoints import read_mask_image


@dataclass(frozen=True, kw_only=True)
class ScanTask:
    """The frames of one scan that shall be there afterwards."""

    source: Path
    out: Path
    scene: str
    frames: tuple[str, ...]
    settings: PrepareSettings
    label_map: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class FrameOutcome:
    """What became of a frame."""

    frame_id: str
    state: Literal["made", "kept", "skipped", "failed"]
    why: str = ""
    """Of a skipped or failed frame."""


def make_scan(task: ScanTask) -> list[FrameOutcome]:
    """Makes the frames that are not there yet; one that cannot be made does not hinder the others."""
    outcomes = [FrameOutcome(frame_id=frame, state="kept") for frame in task.frames if is_prepared(task.out, frame)]
    pending = [frame for frame in task.frames if frame not in {outcome.frame_id for outcome in outcomes}]
    if not pending:
        return outcomes
    try:
        camera = _camera(task)
        scan = read_scan(task.source, task.scene, label_map=task.label_map)
    except DitrError as error:
        return outcomes + [_failed(frame, error) for frame in pending]
    return outcomes + [_make_frame(task, frame, scan=scan, camera=camera) for frame in pending]


def _make_frame(task: ScanTask, frame_id: str, *, scan: Scan, camera: Intrinsics) -> FrameOutcome:
    number = split_id(frame_id)[1]
    try:
        raw = read_raw_frame(task.source, task.scene, number, height=camera.height, width=camera.width)
        segments = _segments(task, number, raw, camera)
        seed = task.settings.seed
        write_frame(
            task.out, frame_id, build_frame(frame_id, raw, segments=segments, scan=scan, camera=camera, seed=seed)
        )
    except Unusable as unusable:
        return FrameOutcome(frame_id=frame_id, state="skipped", why=str(unusable))
    except DitrError as error:
        return _failed(frame_id, error)
    return FrameOutcome(frame_id=frame_id, state="made")


def _segments(task: ScanTask, number: str, raw: RawFrame, camera: Intrinsics) -> np.ndarray:
    """(H, W) int64."""
    masks = task.settings.masks
    if masks is not None:
        return read_mask_image(masks / task.scene / f"{number}.png", height=camera.height, width=camera.width)
    return oversegment(raw.colour, raw.depth_mm, intrinsics=camera)


def _camera(task: ScanTask) -> Intrinsics:
    """The scan's camera; where it is its own, it is written for the reader of the prepared folder."""
    declared = task.settings.camera
    if task.settings.intrinsics == "average":
        return declared
    text = scene_text_path(task.source, task.scene)
    own = read_depth_intrinsics(text, width=declared.width, height=declared.height)
    matrix = ((own.fx, 0.0, own.cx), (0.0, own.fy, own.cy), (0.0, 0.0, 1.0))
    lines = "".join(" ".join(map(repr, row)) + "\n" for row in matrix)
    write_whole(intrinsics_file(task.out, task.scene), lines.encode())
    return own


def _failed(frame_id: str, error: DitrError) -> FrameOutcome:
    return FrameOutcome(frame_id=frame_id, state="failed", why=f"{error.where}: {error.what}")
