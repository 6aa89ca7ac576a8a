"""The files of a prepared frame, each written whole or not at all (docs/data_format.md, Files)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ditr.captures.prepared_frame import PreparedFrame
from ditr.data.scannet_sv import INSTANCES, POINT_COUNT, POINTS, POSES, SEMANTICS, SUPERPOINTS, stored_pose_path
from ditr.data.scene_intrinsics import INTRINSICS
from ditr.files import replacing

ORIGINS = "origin"
"""The folder of what frames were made of."""
_PART = ".part"
_SIZES = {
    POINTS: POINT_COUNT * 24,
    SUPERPOINTS: POINT_COUNT * 8,
    INSTANCES: POINT_COUNT * 8,
    SEMANTICS: POINT_COUNT * 8,
}
FOLDERS = (*_SIZES, POSES, INTRINSICS, ORIGINS)
"""All that an import makes, but for images."""
_POSE_SIZE = 128 + 16 * 8


def pose_file(root: Path, scene: str, number: str) -> Path:
    """Where the centred pose lies."""
    return stored_pose_path(root, scene, number)


def is_prepared(root: Path, scene: str, number: str, *, labelled: bool) -> bool:
    """Whether all files of the frame are there, with the sizes that they must have."""
    kinds = _SIZES if labelled else (POINTS, SUPERPOINTS)
    sizes = {root / kind / f"{scene}_{number}.bin": _SIZES[kind] for kind in kinds}
    sizes[pose_file(root, scene, number)] = _POSE_SIZE
    try:
        return all(path.stat().st_size == size for path, size in sizes.items())
    except FileNotFoundError:
        return False


def write_frame(root: Path, scene: str, number: str, frame: PreparedFrame) -> None:
    """Writes the frame's files below ``root``, the pose last."""
    columns = {
        POINTS: frame.points, SUPERPOINTS: frame.superpoints,
        INSTANCES: frame.instance_ids, SEMANTICS: frame.semantic_ids,
    }  # fmt: skip
    for kind, values in columns.items():
        if values is not None:
            write_whole(root / kind / f"{scene}_{number}.bin", np.ascontiguousarray(values).tobytes())
    buffer = io.BytesIO()
    np.save(buffer, frame.pose_centred)
    write_whole(pose_file(root, scene, number), buffer.getvalue())


def write_whole(path: Path, content: bytes) -> None:
    """Writes beside and renames, so that ``path`` never holds a part of ``content``; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=False) as beside:
        beside.write_bytes(content)


def sweep_parts(root: Path) -> None:
    """Removes what a killed preparation left beside the files that it was writing."""
    below = (path for kind in (*FOLDERS, "2D") for path in (root / kind).rglob(f".*{_PART}"))
    for path in (*root.glob(f".*{_PART}"), *below):
        path.unlink(missing_ok=True)
