"""The five files of a prepared frame, each written whole or not at all (docs/reference/esam.md, Files of a frame)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ditr.data.scannet_sv import INSTANCES, POINT_COUNT, POINTS, POSES, SEMANTICS, SUPERPOINTS, stored_pose_path
from ditr.files import replacing
from ditr.scannet.frame import PreparedFrame
from ditr.scannet.splits import split_id

_PART = ".part"
_SIZES = {
    POINTS: POINT_COUNT * 24,
    SUPERPOINTS: POINT_COUNT * 8,
    INSTANCES: POINT_COUNT * 8,
    SEMANTICS: POINT_COUNT * 8,
}
_POSE_SIZE = 128 + 16 * 8


def pose_file(root: Path, frame_id: str) -> Path:
    """Where the centred pose lies; ``write_frame`` writes it last, so that it marks a finished frame."""
    scene, number = split_id(frame_id)
    return stored_pose_path(root, scene, number)


def is_prepared(root: Path, frame_id: str) -> bool:
    """Whether all five files are there, with the sizes that they must have."""
    sizes = {root / kind / f"{frame_id}.bin": size for kind, size in _SIZES.items()}
    sizes[pose_file(root, frame_id)] = _POSE_SIZE
    try:
        return all(path.stat().st_size == size for path, size in sizes.items())
    except FileNotFoundError:
        return False


def write_frame(root: Path, frame_id: str, frame: PreparedFrame) -> None:
    """Writes the frame's files below ``root``, the pose last."""
    columns = {
        POINTS: frame.points, SUPERPOINTS: frame.superpoints,
        INSTANCES: frame.instance_ids, SEMANTICS: frame.semantic_ids,
    }  # fmt: skip
    for kind, values in columns.items():
        write_whole(root / kind / f"{frame_id}.bin", np.ascontiguousarray(values).tobytes())
    buffer = io.BytesIO()
    np.save(buffer, frame.pose_centred)
    write_whole(pose_file(root, frame_id), buffer.getvalue())


def write_whole(path: Path, content: bytes) -> None:
    """Writes beside and renames, so that ``path`` never holds a part of ``content``; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=False) as beside:
        beside.write_bytes(content)


def sweep_parts(root: Path) -> None:
    """Removes what a killed preparation left beside the files that it was writing."""
    for kind in (*_SIZES, POSES, "intrinsics"):
        for path in (root / kind).rglob(f".*{_PART}"):
            path.unlink(missing_ok=True)
