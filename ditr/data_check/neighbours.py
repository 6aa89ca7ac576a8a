"""Whether the frames of a scene agree in its world, and if not, which mistake about poses or depth would explain it.

Points of one frame, seen from another that looks at the same things, must be as far away as that one measured. Points
that something hides there are not; of frames that are near each other these are few.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from ditr.data.frame_view import spread_evenly
from ditr.data.scannet_sv import FrameSet
from ditr.data_check.pose_mistakes import MISTAKES, NO_POSITION, RIGHT, Mistake
from ditr.errors import DitrError
from ditr.geometry.camera import Intrinsics, project
from ditr.geometry.pose import bent

PAIRS = 24
"""Of a split, spread evenly; a mistake about all poses is seen in every pair."""
POINTS = 1000
"""Of a frame."""
_MIN_MOTION = 0.3
"""Of a pair, in radians turned plus metres moved: those of less agree whatever the convention."""
_LOOK_AHEAD = 60
_TOLERANCE_M, _TOLERANCE_SHARE = 0.03, 0.01
"""Depth may differ by so much, plus this share of itself."""
_MIN_SEEN = 0.1
"""Of the points, for the share of them that agrees to say anything."""
_AGREES = 0.6
_CLEARLY, _MORE = 1.5, 1.1
"""So many times more points agree if what is named is a mistake; and, of depth, than if cameras only turned."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Points of all pairs."""

    pairs: int
    points: int
    seen: int
    """Those that fall where the other frame has measured something."""
    agreeing: int
    """Those of them that are as far as it measured."""

    @property
    def share(self) -> float:
        """Of the points that can be compared; 0 where these are too few."""
        return self.agreeing / self.seen if self.seen > _MIN_SEEN * self.points else 0.0


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """What a split's frames say."""

    stored: Agreement
    """With poses and depth as they are."""
    mistake: Mistake | None = None
    """What would explain that they do not agree."""
    corrected: Agreement | None = None
    """With that mistake undone."""

    @property
    def disagree(self) -> bool:
        """They see the same things, but not at the same places, and nothing explains it."""
        stored = self.stored
        return self.mistake is None and stored.seen > _MIN_SEEN * stored.points and stored.share < _AGREES


def compare_neighbours(frames: FrameSet) -> Neighbours | None:
    """None where no two frames of a scene have a pose in its world and a depth image.

    Of frames none of which is broken.
    """
    pairs = [pair for first, second in _pairs(frames) if (pair := _pair(frames, first, second)) is not None]
    if not pairs:
        return None
    stored = _agreement(pairs, RIGHT)
    corrected = ((_agreement(pairs, mistake), mistake) for mistake in MISTAKES)
    best, mistake = max(corrected, key=lambda one: one[0].agreeing)
    clearly = best.share >= _AGREES and best.agreeing >= _CLEARLY * stored.agreeing
    # Of depth that is taken for much more than it is, positions make no difference: they must make one.
    if clearly and (mistake.depth_factor == 1 or best.agreeing >= _MORE * _agreement(pairs, NO_POSITION).agreeing):
        return Neighbours(stored=stored, mistake=mistake, corrected=best)
    return Neighbours(stored=stored)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Some points of one frame, and another frame to look at them from."""

    points: np.ndarray
    """(P, 3) metres in the first camera."""
    poses: tuple[np.ndarray, np.ndarray]
    """Of the first and the second camera, to their scene's world."""
    depth_m: np.ndarray
    """(H, W) of the second."""
    intrinsics: Intrinsics
    """Of the second."""


def _pairs(frames: FrameSet) -> Iterable[tuple[int, int]]:
    """A frame, and the first of its scene after it for which the camera has moved enough; else the last looked at."""
    scenes = [info.scene for info in frames.infos.frames]
    starts = [index for index in range(len(scenes) - 1) if scenes[index] == scenes[index + 1]]
    for place in sorted(spread_evenly(PAIRS, total=len(starts))):
        first = starts[place]
        pose = _world_pose(frames, first)
        if pose is None:
            continue
        second = first
        while second + 1 < len(scenes) and scenes[second + 1] == scenes[first] and second - first < _LOOK_AHEAD:
            second += 1
            other = _world_pose(frames, second)
            if other is not None and _motion(pose, other) >= _MIN_MOTION:
                break
        yield first, second


def _world_pose(frames: FrameSet, index: int) -> np.ndarray | None:
    """None where there is none that geometry can be done with: the check of single frames says so."""
    try:
        pose = frames.world_pose(index)
    except DitrError:
        return None
    return None if pose is None or bent(pose) else pose


def _motion(one: np.ndarray, other: np.ndarray) -> float:
    cosine = (np.trace(one[:3, :3].T @ other[:3, :3]) - 1) / 2
    return float(np.arccos(np.clip(cosine, -1, 1)) + np.linalg.norm(one[:3, 3] - other[:3, 3]))


def _pair(frames: FrameSet, first: int, second: int) -> _Pair | None:
    poses = _world_pose(frames, first), _world_pose(frames, second)
    try:
        depth, points, pose = frames.depth_m(second), frames.points(first), frames.pose(first)
    except DitrError:
        return None  # as above, of depth, which no run reads
    intrinsics = frames.intrinsics_of(second)
    if depth is None or depth.shape != (intrinsics.height, intrinsics.width) or poses[0] is None or poses[1] is None:
        return None
    chosen = points[:: max(1, len(points) // POINTS), :3].astype(np.float64)
    camera = (chosen - pose[:3, 3]) @ np.linalg.inv(pose[:3, :3]).T
    return _Pair(points=camera, poses=(poses[0], poses[1]), depth_m=depth, intrinsics=intrinsics)


def _agreement(pairs: list[_Pair], mistake: Mistake) -> Agreement:
    seen = agreeing = 0
    for pair in pairs:
        first, second = (mistake.corrected(pose) for pose in pair.poses)
        points, depth = pair.points * mistake.depth_factor, pair.depth_m * mistake.depth_factor
        points = points / (mistake.focal_factor, mistake.focal_factor, 1)
        camera = pair.intrinsics
        if mistake.focal_factor != 1:
            camera = replace(camera, fx=camera.fx * mistake.focal_factor, fy=camera.fy * mistake.focal_factor)
        world = points @ first[:3, :3].T + first[:3, 3]
        where = project(world, pose_c2w=second, intrinsics=camera)
        u, v = np.rint(where.uv[where.valid]).astype(np.int64).T
        distance = (world[where.valid] - second[:3, 3]) @ second[:3, 2]
        measured = depth[v, u]
        known = measured > 0
        seen += int(known.sum())
        allowed = _TOLERANCE_M * mistake.unit_per_m + _TOLERANCE_SHARE * measured
        agreeing += int((known & (np.abs(distance - measured) <= allowed)).sum())
    return Agreement(pairs=len(pairs), points=sum(len(pair.points) for pair in pairs), seen=seen, agreeing=agreeing)
