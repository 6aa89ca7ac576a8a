"""Reads every file of one frame and says what is wrong with it and what is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ditr.data.frame_files import FileFacts, file_facts, read_image
from ditr.data.scannet_sv import (
    IMAGE,
    INSTANCES,
    MANIFEST,
    POINTS,
    POSES,
    SEMANTICS,
    SUPERPOINTS,
    FrameSet,
    depth_path,
    is_int32,
    read_stored_pose,
    stored_pose_path,
    world_pose_path,
)
from ditr.data_check.label_statistics import label_statistics
from ditr.data_check.reprojection import LIMIT_PX, FrameReprojection, measure
from ditr.errors import DitrError
from ditr.geometry.camera import project
from ditr.geometry.pose import MAX_ROTATION_ERROR, bent

MAX_COLOUR_DIFFERENCE = 3.0
"""Mean difference of a point's colour from its pixel's that JPEG decoders may cause, of 255."""
MAX_DEPTH_DIFFERENCE_M = 0.0015
HARMLESS = frozenset({"missing depth", "depth", f"missing {POSES}", POSES, "world pose", "missing features"})
"""Kinds that leave a frame usable. A run reads neither depth images nor pose_centered, whose matrix the info pickle
holds, nor where frames are in their scene's world, and makes feature maps of its own. Every other kind found in a frame
breaks it: its points, labels, pose or image are missing or not what they are taken for."""
PIXEL_DISTANCE = "distance to the nearest pixel's centre"
DEPTH = "depth of a frame's points m, median"
_ROW_BYTES = {POINTS: 24, SUPERPOINTS: 8, INSTANCES: 8, SEMANTICS: 8}
_BAD_VALUES = {
    POINTS: "point values",
    SUPERPOINTS: "superpoint ids",
    INSTANCES: "ids out of range",
    SEMANTICS: "ids out of range",
}


@dataclass(frozen=True, kw_only=True)
class FrameFindings:
    """One frame."""

    id: str
    problems: tuple[tuple[str, str], ...]
    """Kind, and the path with what is wrong."""
    values: dict[str, float]
    """Statistics by name."""
    reprojection: FrameReprojection | None
    """None where points or pose cannot be read."""
    camera: tuple[float, float, float, float]
    """fx, fy, cx, cy as declared."""
    files: dict[str, FileFacts]
    """Those that a run reads, by kind; of what cannot be read none."""


def check_frame(frames: FrameSet, index: int) -> FrameFindings:
    """Checks files, counts, id ranges, pose, image, and that points are pixels of the image."""
    found = _Found(frames, index)
    readers = {
        POINTS: frames.points,
        SUPERPOINTS: frames.superpoints,
        INSTANCES: frames.instance_ids,
        SEMANTICS: frames.semantic_ids,
    }
    columns = {kind: found.read(kind, reader) for kind, reader in readers.items() if kind in frames.paths(index)}
    points = columns[POINTS]
    _check_counts(columns, found)
    _check_stored_pose(found)
    _check_features(found)
    image = _image(found)
    pose = _pose(found, points)
    reprojection = None
    if pose is not None:
        _check_world_pose(found, pose)
    if points is not None and pose is not None:
        found.values[DEPTH] = float(np.median((points[:, :3] - pose[:3, 3]) @ pose[:3, 2]))
        reprojection = _check_pixels(points, pose, image, found)
    found.values |= label_statistics(
        superpoints=columns[SUPERPOINTS],
        instances=columns.get(INSTANCES),
        semantics=columns.get(SEMANTICS),
        classes=frames.classes if SEMANTICS in columns else None,
    )
    camera = frames.intrinsics_of(index)
    return FrameFindings(
        id=frames.ids[index],
        problems=tuple(found.problems),
        values=found.values,
        reprojection=reprojection,
        camera=(camera.fx, camera.fy, camera.cx, camera.cy),
        files={kind: facts for kind, path in _read_by_runs(frames, index).items() if (facts := file_facts(path))},
    )


def _read_by_runs(frames: FrameSet, index: int) -> dict[str, Path]:
    return frames.paths(index) | {IMAGE: frames.image_path(index)}


@dataclass
class _Found:
    """What is found in one frame, as it comes in."""

    frames: FrameSet
    index: int
    problems: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        self.problems.append((kind, text))

    def read(self, kind: str, reader: Callable[[int], np.ndarray | None]) -> np.ndarray | None:
        """What the reader gives, or None with its error noted."""
        path = self.frames.path(self.index, kind)
        try:
            return reader(self.index)
        except OSError as error:
            self.add(f"unreadable {kind}", f"{path}: {error.strerror}")
            return None
        except DitrError as error:
            if not path.is_file():
                cause = f"missing {kind}"
            elif self._is_truncated(kind, path):
                cause = f"truncated {kind}"
            else:
                cause = _BAD_VALUES[kind]
            self.add(cause, f"{error.where}: {error.what}")
            return None

    def _is_truncated(self, kind: str, path: Path) -> bool:
        """Whether it holds no whole rows, or fewer than the file of points."""
        rows, rest = divmod(path.stat().st_size, _ROW_BYTES[kind])
        points = self.frames.path(self.index, POINTS)
        whole = points.stat().st_size // _ROW_BYTES[POINTS] if points.is_file() else 1
        return rest > 0 or (rows < max(whole, 1) and not is_int32(path, points=points))


def _check_counts(columns: dict[str, np.ndarray | None], found: _Found) -> None:
    """How many points a frame has is its own affair, but its files must agree."""
    counts = {kind: len(values) for kind, values in columns.items() if values is not None}
    if len(set(counts.values())) > 1:
        of_each = ", ".join(f"{count} in {kind}" for kind, count in counts.items())
        info = found.frames.infos.frames[found.index]
        found.add("point count", f"{info.id}: its files are of different lengths: {of_each}")


def _check_stored_pose(found: _Found) -> None:
    """The file that the pickle's pose was made from; multi-view infos have raw poses and no such file."""
    info = found.frames.infos.frames[found.index]
    if not info.centred:
        return
    path = stored_pose_path(found.frames.root, info.scene, info.number)
    try:
        stored = read_stored_pose(path)
    except DitrError as error:
        found.add(POSES if path.exists() else f"missing {POSES}", f"{error.where}: {error.what}")
        return
    if not np.array_equal(stored, info.pose_c2w, equal_nan=True):
        found.add(POSES, f"{path}: differs from the pose in the info pickle")


def _check_world_pose(found: _Found, pose: np.ndarray) -> None:
    """Where the frame is in its scene's world, which puts frames together: it is turned as the centred pose is."""
    try:
        world = found.frames.world_pose(found.index)
    except DitrError as error:
        found.add("world pose", f"{error.where}: {error.what}")
        return
    if world is not None and np.abs(world[:3, :3] - pose[:3, :3]).max() > MAX_ROTATION_ERROR:
        info = found.frames.infos.frames[found.index]
        path = world_pose_path(found.frames.root, info.scene, info.number)
        found.add("world pose", f"{path}: is turned otherwise than the frame's centred pose")


def _check_features(found: _Found) -> None:
    file = found.frames.infos.frames[found.index].features_file
    if file is not None and not (found.frames.root / file).is_file():
        found.add("missing features", f"{found.frames.root / file}: no such file, named by clip_feat_path")


def _image(found: _Found) -> np.ndarray | None:
    try:
        return found.frames.image(found.index)
    except DitrError as error:
        found.add("image" if Path(error.where).is_file() else "missing image", f"{error.where}: {error.what}")
        return None


def _pose(found: _Found, points: np.ndarray | None) -> np.ndarray | None:
    """A pose that geometry can be done with."""
    info = found.frames.infos.frames[found.index]
    if points is None and not info.centred:
        return None  # it would be moved by the mean of the points
    try:
        pose = found.frames.pose(found.index)
    except DitrError as error:
        found.add("pose not finite", f"{error.where}: {error.what}")
        return None
    if what := bent(pose):
        found.add("pose not rigid", f"{info.id}: {what}")
        return None
    return pose


def _check_pixels(points: np.ndarray, pose: np.ndarray, image: np.ndarray | None, found: _Found) -> FrameReprojection:
    """Every point is a back-projected pixel, and has its colour and depth."""
    intrinsics = found.frames.intrinsics_of(found.index)
    measured = measure(points[:, :3], pose_c2w=pose, intrinsics=intrinsics)
    seen = project(points[:, :3], pose_c2w=pose, intrinsics=intrinsics)
    found.values["points outside the image, share"] = float(np.mean(~seen.valid))
    if measured.verdict == "none" or (measured.error_px or 0.0) > LIMIT_PX or not seen.valid.any():
        return measured  # what is at the declared pixels says nothing then
    uv, points = seen.uv[seen.valid], points[seen.valid]
    pixel = np.rint(uv)
    distance = np.abs(uv - pixel).max(axis=1)
    found.values[f"{PIXEL_DISTANCE} px, mean"] = float(distance.mean())
    found.values[f"{PIXEL_DISTANCE} px, max"] = float(distance.max())
    u, v = pixel.astype(np.int64).T
    if image is not None:
        difference = float(np.abs(image[v, u].astype(np.float32) - points[:, 3:]).mean())
        found.values["colour difference of 255, mean"] = difference
        if difference > MAX_COLOUR_DIFFERENCE:
            path = found.frames.path(found.index, POINTS)
            found.add("colour", f"{path}: colours differ from the image by {difference:.1f} of 255 on average")
    _check_depth(u, v, points, pose, found)
    return measured


def _check_depth(u: np.ndarray, v: np.ndarray, points: np.ndarray, pose: np.ndarray, found: _Found) -> None:
    """Depth images are no input of training, so that a folder may lack them all; a present one must agree."""
    root, info = found.frames.root, found.frames.infos.frames[found.index]
    path = depth_path(root, info.scene, info.number)
    if not path.exists():
        if (root / MANIFEST).is_file():
            found.add("missing depth", f"{path}: no such file")
        return
    try:
        depth = read_image(path)
    except DitrError as error:
        found.add("depth", f"{error.where}: {error.what}")
        return
    intrinsics = found.frames.intrinsics_of(found.index)
    expected = (intrinsics.height, intrinsics.width)
    if depth.shape != expected or depth.dtype not in (np.uint16, np.int32):
        found.add("depth", f"{path}: {depth.shape} {depth.dtype}, not {expected} uint16")
        return
    z = (points[:, :3] - pose[:3, 3]) @ pose[:3, 2]
    difference = np.abs(depth[v, u] / 1000.0 - z).max()
    if difference > MAX_DEPTH_DIFFERENCE_M:
        found.add("depth", f"{path}: differs from the points by up to {difference:.4f} m")
