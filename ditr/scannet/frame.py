"""One frame from its images and its scan to points, superpoints and labels (docs/reference/esam.md, Making a frame)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ditr.data.scannet_sv import POINT_COUNT
from ditr.geometry.camera import Intrinsics, backproject
from ditr.scannet.raw_frame import RawFrame, Unusable
from ditr.scannet.scan import Scan
from ditr.scannet.superpoints import group_points
from ditr.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class PreparedFrame:
    """What is stored of a frame: 20,000 points, in the raw world moved by the mean of all points of the frame."""

    points: np.ndarray
    """(20000, 6) float32: x, y, z in metres, r, g, b in 0..255."""
    superpoints: np.ndarray
    """(20000,) int64, 0..S-1, each present."""
    instance_ids: np.ndarray
    """(20000,) int64, objectId + 1, 0 = unannotated."""
    semantic_ids: np.ndarray
    """(20000,) int64 raw ScanNet200 ids, 0 = unannotated."""
    pose_centred: np.ndarray
    """(4, 4) float64, camera to the world of the points."""


def build_frame(
    frame_id: str, raw: RawFrame, *, segments: np.ndarray, scan: Scan, camera: Intrinsics, seed: int
) -> PreparedFrame:
    """Points are pixels with depth, drawn by (seed, frame id) alone; fewer than 20,000 are drawn with replacement.

    ``segments`` (H, W) int64 is the superpoint of each pixel before uncovered ones are clustered. The aligned world
    serves the labels only. ``Unusable`` where the alignment gives coordinates that are not finite.
    """
    v, u = np.nonzero(raw.depth_mm)
    uv = np.stack([u, v], axis=1).astype(np.float64)
    xyz = backproject(uv, raw.depth_mm[v, u] / 1000.0, pose_c2w=raw.pose_c2w, intrinsics=camera)
    offset = xyz.mean(axis=0)
    rng = np.random.default_rng(derive_seed(seed, "prepare", frame_id))
    chosen = rng.choice(len(xyz), POINT_COUNT, replace=len(xyz) < POINT_COUNT)
    xyz, u, v = xyz[chosen], u[chosen], v[chosen]
    aligned = xyz @ scan.axis_align[:3, :3].T + scan.axis_align[:3, 3]
    if not np.isfinite(aligned).all():
        raise Unusable("the aligned coordinates are not finite")
    instance_ids, semantic_ids = scan.label(aligned)
    points = np.concatenate([xyz - offset, raw.colour[v, u]], axis=1)
    rng_groups = np.random.default_rng(derive_seed(seed, "superpoints", frame_id))
    pose = raw.pose_c2w.copy()
    pose[:3, 3] -= offset
    return PreparedFrame(
        points=points.astype(np.float32),
        superpoints=group_points(segments[v, u], points, rng=rng_groups),
        instance_ids=instance_ids,
        semantic_ids=semantic_ids,
        pose_centred=pose,
    )
