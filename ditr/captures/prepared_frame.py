"""One frame from its pixels to points, superpoints and labels (docs/reference/esam.md, Making a frame)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ditr.captures.convention import level_pose
from ditr.captures.superpoints import group_points
from ditr.data.scannet_sv import POINT_COUNT
from ditr.geometry.camera import Intrinsics, backproject
from ditr.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class PointLabels:
    """What the N points of a frame are."""

    instance_ids: np.ndarray
    """(N,) int64, 0 = unannotated."""
    semantic_ids: np.ndarray
    """(N,) int64 class ids, 0 = unannotated."""
    distance_m: float
    """Of half of the points from where the annotated scene is, at most."""


class Labels(Protocol):
    """Who knows what the things in a scene are."""

    def of_world(self, xyz: np.ndarray, *, pose_c2w: np.ndarray) -> PointLabels:
        """Of (N, 3) points in the capture's world.

        ``pose_c2w`` (4, 4) is the camera's that saw them.

        Raises
        ------
        Unusable: it cannot be said of this frame.
        DitrError: the points are not in this scene.
        """


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """A frame in the one camera that it is kept in."""

    colour: np.ndarray
    """(H, W, 3) uint8, as they stand in the image file that is kept."""
    depth_mm: np.ndarray
    """(H, W) uint16, 0 = nothing measured."""
    pose_c2w: np.ndarray | None
    """(4, 4) float64, camera to the capture's world."""


@dataclass(frozen=True, kw_only=True)
class PreparedFrame:
    """What is stored of a frame: 20,000 points, in the capture's world moved by the mean of all points of the frame."""

    points: np.ndarray
    """(20000, 6) float32: x, y, z in metres, r, g, b in 0..255."""
    superpoints: np.ndarray
    """(20000,) int64, 0..S-1, each present."""
    instance_ids: np.ndarray | None
    """(20000,) int64, 0 = unannotated; None without labels."""
    semantic_ids: np.ndarray | None
    """(20000,) int64 class ids, 0 = unannotated; None without labels."""
    pose_centred: np.ndarray
    """(4, 4) float64, camera to the world of the points."""
    distance_m: float | None
    """As ``PointLabels`` has it."""


def build_frame(
    frame_id: str, pixels: Pixels, *, segments: np.ndarray, camera: Intrinsics, seed: int, labels: Labels | None
) -> PreparedFrame:
    """Points are pixels with depth, drawn by (seed, frame id) alone; fewer than 20,000 are drawn with replacement.

    A frame without a pose stands in its own camera's frame, turned so that +z is up where the camera was level.

    Parameters
    ----------
    segments: (H, W) int64 superpoint of each pixel before uncovered ones are clustered.

    Raises
    ------
    Unusable, DitrError: the labels say so.
    """
    pose = (level_pose() if pixels.pose_c2w is None else pixels.pose_c2w).copy()
    v, u = np.nonzero(pixels.depth_mm)
    uv = np.stack([u, v], axis=1).astype(np.float64)
    xyz = backproject(uv, pixels.depth_mm[v, u] / 1000.0, pose_c2w=pose, intrinsics=camera)
    offset = xyz.mean(axis=0)
    rng = np.random.default_rng(derive_seed(seed, "prepare", frame_id))
    chosen = rng.choice(len(xyz), POINT_COUNT, replace=len(xyz) < POINT_COUNT)
    xyz, u, v = xyz[chosen], u[chosen], v[chosen]
    labelled = None if labels is None else labels.of_world(xyz, pose_c2w=pose)
    points = np.concatenate([xyz - offset, pixels.colour[v, u]], axis=1)
    rng_groups = np.random.default_rng(derive_seed(seed, "superpoints", frame_id))
    pose[:3, 3] -= offset
    return PreparedFrame(
        points=points.astype(np.float32),
        superpoints=group_points(segments[v, u], points, rng=rng_groups),
        instance_ids=None if labelled is None else labelled.instance_ids,
        semantic_ids=None if labelled is None else labelled.semantic_ids,
        pose_centred=pose,
        distance_m=None if labelled is None else labelled.distance_m,
    )
