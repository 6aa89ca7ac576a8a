"""One RGB-D frame as it lies on disk, before anything is sampled, mapped or augmented."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ditr.data.class_table import SCANNET200, ClassTable
from ditr.geometry.camera import Intrinsics

FRAME_ID = re.compile(r"(?P<scene>\w[\w.-]*)_(?P<number>[^\W_]+(?:[.-][^\W_]+)*)")
"""``<scene>_<number>``, the one form of a frame's id: a safe file name, of letters, digits, ``_``, ``-`` and ``.``,
that begins with none of the last two. The number, which may be any such name without ``_``, follows the last ``_``."""


def scene_of(frame_id: str) -> str:
    """``scene0000_00`` of ``scene0000_00_200``."""
    return frame_id.rpartition("_")[0]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """N points of one frame (docs/reference/esam.md, Files of a frame).

    Coordinates are metres in the centred world (not axis-aligned, +z roughly up); ``pose_c2w`` maps the camera into it.
    Its origin is about the mean of the points: a prepared single frame's is that of all measured pixels, of which the
    points are a sample; a multi-view frame's is that of the points themselves.
    """

    id: str
    """``<scene>_<frame>``, e.g. ``scene0000_00_200``."""
    scene: str
    points: np.ndarray
    """(N, 6) float32: x, y, z in metres, r, g, b in 0..255."""
    superpoints: np.ndarray
    """(N,) int64, contiguous 0..S-1."""
    instance_ids: np.ndarray | None
    """(N,) int64, 0 = unannotated; None of a frame without labels."""
    semantic_ids: np.ndarray | None
    """(N,) int64 class ids as they are stored, 0 = unannotated; None of a frame without classes."""
    image_path: Path
    pose_c2w: np.ndarray
    """(4, 4) float64, camera to centred world."""
    intrinsics: Intrinsics
    classes: ClassTable = SCANNET200
    """What the class ids mean."""

    def __repr__(self) -> str:
        return f"Frame({self.id!r}, {len(self.points):,} points)"
