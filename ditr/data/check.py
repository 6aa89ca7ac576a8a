"""Reads every file of a data set and says everything that is wrong with it, and what is in it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ditr.data.dataset import Dataset
from ditr.data.scannet_sv import INSTANCES, POINT_COUNT, POINTS, SEMANTICS, SUPERPOINTS, FrameSet, read_image
from ditr.data.synthrooms import MANIFEST, content_digest
from ditr.errors import DitrError
from ditr.geometry.camera import project
from ditr.progress import Progress, silent

MAX_REPROJECTION_PX = 0.05
MAX_COLOUR_DIFFERENCE = 3.0
"""Mean difference of a point's colour from its pixel's that JPEG decoders may cause, of 255."""
MIN_INSTANCE_POINTS = 100
_MAX_DEPTH_DIFFERENCE_M = 0.0015
_EXAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One kind of problem: how often, and the first ten places with what is wrong there."""

    kind: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What ``ditr data check`` prints."""

    problems: tuple[Problem, ...]
    statistics: dict[str, float]
    """Name -> value; means are over frames."""


def check_dataset(dataset: Dataset, *, progress: Progress = silent) -> CheckReport:
    """Checks files, shapes, id ranges, contiguity, poses, images and the agreement of points with pixels."""
    found = _Found()
    total = len(dataset.train) + len(dataset.val)
    done = 0
    for frames in (dataset.train, dataset.val):
        for index in range(len(frames)):
            _check_frame(frames, index, found)
            done += 1
            progress("frames", done, total)
    shared = {frame[:12] for frame in dataset.train.ids} & {frame[:12] for frame in dataset.val.ids}
    for scene in sorted(shared):
        found.add("scenes in both splits", f"{dataset.root}: {scene} is in train and val")
    statistics = {"train frames": float(len(dataset.train)), "val frames": float(len(dataset.val))}
    statistics |= found.statistics()
    if (dataset.root / MANIFEST).is_file():
        statistics |= _check_manifest(dataset, found)
    return CheckReport(problems=found.problems(), statistics=statistics)


@dataclass
class _Found:
    """Problems by kind and values by name, as they come in."""

    where: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, text: str) -> None:
        self.where[kind].append(text)

    def read(self, kind: str, reader: Callable[[int], np.ndarray], index: int) -> np.ndarray | None:
        """What the reader gives, or None with its error noted."""
        try:
            return reader(index)
        except DitrError as error:
            self.add(kind, f"{error.where}: {error.what}")
            return None

    def problems(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(kind=kind, count=len(texts), examples=tuple(texts[:_EXAMPLES]))
            for kind, texts in self.where.items()
        )

    def statistics(self) -> dict[str, float]:
        """The mean of every value, the maximum of those called so, and shares."""
        return {
            name: float(np.max(values) if name.endswith("max") else np.mean(values))
            for name, values in self.values.items()
        }


def _check_frame(frames: FrameSet, index: int, found: _Found) -> None:
    points = found.read(POINTS, frames.points, index)
    superpoints = found.read(SUPERPOINTS, frames.superpoints, index)
    instances = found.read(INSTANCES, frames.instance_ids, index)
    semantics = found.read(SEMANTICS, frames.semantic_ids, index)
    pose = found.read("pose", frames.pose, index)
    image = found.read("image", frames.image, index)
    _check_counts(frames, index, {POINTS: points, SUPERPOINTS: superpoints, INSTANCES: instances, SEMANTICS: semantics},
                  found)  # fmt: skip
    _check_stored_pose(frames, index, found)
    if points is not None and pose is not None:
        _check_pixels(frames, index, points, pose, image, found)
    if instances is not None and superpoints is not None and len(instances) == len(superpoints):
        found.values["superpoint purity"].append(_purity(superpoints, instances))
    if superpoints is not None:
        found.values["superpoints a frame"].append(float(superpoints.max() + 1))
    if instances is not None:
        sizes = np.bincount(instances)[1:]
        found.values["instances a frame"].append(float(np.sum(sizes > 0)))
        found.values[f"instances a frame of {MIN_INSTANCE_POINTS} points or more"].append(
            float(np.sum(sizes >= MIN_INSTANCE_POINTS))
        )
        found.values["unannotated share of points"].append(float(np.mean(instances == 0)))


def _check_counts(frames: FrameSet, index: int, columns: dict[str, np.ndarray | None], found: _Found) -> None:
    for kind, values in columns.items():
        if values is not None and len(values) != POINT_COUNT:
            path = frames.path(index, kind)
            found.add("counts", f"{path}: {len(values)} points, not {POINT_COUNT}")


def _check_stored_pose(frames: FrameSet, index: int, found: _Found) -> None:
    info = frames.infos.frames[index]
    if not info.centred:  # its pose is the raw one, which the folder's pose_centered is not
        return
    path = frames.root / "pose_centered" / info.scene / f"{info.number}.npy"
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        found.add("pose_centered", f"{path}: cannot be read ({error})")
        return
    if stored.dtype != np.float64 or stored.shape != (4, 4):
        found.add("pose_centered", f"{path}: {stored.shape} {stored.dtype}, not (4, 4) float64")
    elif not np.array_equal(stored, info.pose_c2w, equal_nan=True):
        found.add("pose_centered", f"{path}: differs from the pose in the info pickle")


def _check_pixels(
    frames: FrameSet, index: int, points: np.ndarray, pose: np.ndarray, image: np.ndarray | None, found: _Found
) -> None:
    """Every point is a back-projected pixel: it falls on a pixel's centre, and has its colour and depth."""
    where = frames.path(index, POINTS)
    seen = project(points[:, :3], pose_c2w=pose, intrinsics=frames.intrinsics_of(index))
    if not seen.valid.all():
        found.add("reprojection", f"{where}: {np.sum(~seen.valid)} points fall outside the image")
        return
    error = np.abs(seen.uv - np.round(seen.uv)).max(axis=1)
    found.values["reprojection error px, mean"].append(float(error.mean()))
    found.values["reprojection error px, max"].append(float(error.max()))
    if error.max() >= MAX_REPROJECTION_PX:
        found.add("reprojection", f"{where}: points are up to {error.max():.3f} px off a pixel's centre")
        return
    u, v = np.round(seen.uv).astype(np.int64).T
    if image is not None:
        difference = float(np.abs(image[v, u].astype(np.float32) - points[:, 3:]).mean())
        found.values["colour difference of 255, mean"].append(difference)
        if difference > MAX_COLOUR_DIFFERENCE:
            found.add("colour", f"{where}: colours differ from the image by {difference:.1f} of 255 on average")
    _check_depth(frames, index, u, v, points, pose, found)


def _check_depth(
    frames: FrameSet, index: int, u: np.ndarray, v: np.ndarray, points: np.ndarray, pose: np.ndarray, found: _Found
) -> None:
    """Depth images are no input of training, so that a folder may lack them all; a present one must agree."""
    info = frames.infos.frames[index]
    path = frames.root / "2D" / info.scene / "depth" / f"{info.number}.png"
    if not path.exists() and not (frames.root / MANIFEST).is_file():
        return
    depth = found.read("depth", lambda _: read_image(path), index)
    if depth is None:
        return
    expected = (frames.intrinsics_of(index).height, frames.intrinsics_of(index).width)
    if depth.shape != expected or depth.dtype not in (np.uint16, np.int32):
        found.add("depth", f"{path}: {depth.shape} {depth.dtype}, not {expected} uint16")
        return
    z = (points[:, :3] - pose[:3, 3]) @ pose[:3, 2]
    difference = np.abs(depth[v, u] / 1000.0 - z).max()
    if difference > _MAX_DEPTH_DIFFERENCE_M:
        found.add("depth", f"{path}: differs from the points by up to {difference:.4f} m")


def _check_manifest(dataset: Dataset, found: _Found) -> dict[str, float]:
    """Digest, and what only the maker of an embedded set knows."""
    path = dataset.root / MANIFEST
    manifest: dict[str, Any] = json.loads(path.read_text())
    if content_digest(dataset.root) != manifest["digest"]:
        found.add("digest", f"{path}: the files are not those that were made; delete the folder to make them again")
    statistics = {}
    for name, frames in (("train", dataset.train), ("val", dataset.val)):
        textured, large = 0, 0
        for frame_id in frames.ids:
            frame = manifest["frames"][frame_id]
            textured += len(frame["texture_ids"])
            large += sum(
                thing["points"] >= MIN_INSTANCE_POINTS and thing["name"] not in ("wall", "floor")
                for thing in frame["instances"].values()
            )
        statistics[f"texture-only share of {name} instances"] = textured / max(large, 1)
    return statistics


def _purity(superpoints: np.ndarray, instances: np.ndarray) -> float:
    """Share of points that are of their superpoint's most frequent instance."""
    pairs, counts = np.unique(np.stack([superpoints, instances]), axis=1, return_counts=True)
    largest = np.zeros(superpoints.max() + 1)
    np.maximum.at(largest, pairs[0], counts)
    return float(largest.sum() / len(superpoints))
