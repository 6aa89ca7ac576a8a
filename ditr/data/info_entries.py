"""One entry of an info pickle: checked, and brought to one form (docs/reference/esam.md, Info pickles)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ditr.data.frame import FRAME_ID

NUM_POINT_FEATURES = 6
_SCAN = re.compile(r"scene\d{4}_\d{2}")
"""A scene of ScanNet: known as one wherever it stands in a path."""
_IMAGES = "2D"
_SINGLE = {
    "pts_path": "pts_paths",
    "super_pts_path": "super_pts_paths",
    "img_path": "img_paths",
    "pose": "poses",
}
"""Key of a single frame -> key of the list in a multi-view entry."""
_INSTANCES, _SEMANTICS, _FEATURES = "pts_instance_mask_path", "pts_semantic_mask_path", "clip_feat_path"
_OPTIONAL = {key: f"{key}s" for key in (_INSTANCES, _SEMANTICS, _FEATURES)}


@dataclass(frozen=True, kw_only=True)
class FrameInfo:
    """One frame of a split. File names are relative to their folder of the data set, the image to its root."""

    scene: str
    """``scene0000_00``."""
    number: str
    """The frame's number in its scene, as written in file names."""
    points_file: str
    superpoints_file: str
    instances_file: str | None
    """None of a frame without labels."""
    semantics_file: str | None
    """None of a frame without classes."""
    image: str
    pose_c2w: np.ndarray
    """(4, 4) float64, camera to the world that the stored points are in, metres; may hold NaN, which the reader of the
    frame reports."""
    axis_align: np.ndarray
    """(4, 4) float64; nothing here uses it, it is kept so that what was read can be written again."""
    features_file: str | None = None
    """``clip_feat_path`` as it stands in the pickle; nothing here reads the file."""
    centred: bool = True
    """False for frames of multi-view infos: their points and poses are in the scan's raw world."""

    @property
    def id(self) -> str:
        """``<scene>_<number>``."""
        return f"{self.scene}_{self.number}"


class BrokenEntryError(Exception):
    """Says what is wrong with one entry, and names it."""


def single_entries(entry: object) -> tuple[list[dict[Any, Any]], bool]:
    """The entry itself, or one like v1's for each frame of a multi-view entry; and whether they are centred."""
    if not isinstance(entry, dict):
        raise BrokenEntryError(f"it is a {type(entry).__name__}, not a dict")
    if "pts_paths" not in entry:
        return [entry], True
    keys = _SINGLE | {key: plural for key, plural in _OPTIONAL.items() if plural in entry}
    try:
        lists = {key: get(entry, plural, list) for key, plural in keys.items()}
        if len({len(items) for items in lists.values()}) != 1:
            lengths = ", ".join(f"{len(items)} {keys[key]}" for key, items in lists.items())
            raise BrokenEntryError(f"its lists are of different lengths: {lengths}")
        annotated = entry if "axis_align_matrix" in entry else get(entry, "annos", dict)
        shared = {"point_cloud": get(entry, "point_cloud", dict), "annos": annotated}
        if not lists["pts_path"]:
            raise BrokenEntryError("it has no frames")
    except BrokenEntryError as error:
        raise BrokenEntryError(f"scan {_scan(entry)}: {error}") from error
    return [shared | dict(zip(lists, items, strict=True)) for items in zip(*lists.values(), strict=True)], False


def frame_info(entry: dict[Any, Any], *, centred: bool) -> FrameInfo:
    """The frame of a single entry, v1 or v2; its five files must be of one frame."""
    if "lidar_points" not in entry and "pts_path" not in entry:
        raise BrokenEntryError("it has neither 'lidar_points' nor 'pts_path'")
    if "lidar_points" in entry:  # v2
        points = get(entry, "lidar_points", dict)
        path, features = get(points, "lidar_path", str), get(points, "num_pts_feats", int)
        annotated = entry
    else:
        path, features = get(entry, "pts_path", str), get(get(entry, "point_cloud", dict), "num_features", int)
        annotated = get(entry, "annos", dict)
    try:
        return _frame_info(entry, points=path, features=features, annotated=annotated, centred=centred)
    except BrokenEntryError as error:
        raise BrokenEntryError(f"{path}: {error}") from error


def get(holder: object, key: str, kind: type | tuple[type, ...]) -> Any:
    """``holder[key]``, a ``kind``."""
    if not isinstance(holder, dict) or key not in holder:
        raise BrokenEntryError(f"has no {key!r}")
    if not isinstance(holder[key], kind):
        expected = kind.__name__ if isinstance(kind, type) else " or ".join(each.__name__ for each in kind)
        raise BrokenEntryError(f"{key!r} is a {type(holder[key]).__name__}, not a {expected}")
    return holder[key]


def _frame_info(
    entry: dict[Any, Any], *, points: str, features: int, annotated: dict[Any, Any], centred: bool
) -> FrameInfo:
    if features != NUM_POINT_FEATURES:
        raise BrokenEntryError(f"{features} features a point, not {NUM_POINT_FEATURES}")
    points_file = _below("points", points)
    superpoints_file = _below("super_points", get(entry, "super_pts_path", str))
    instances_file = _below("instance_mask", get(entry, _INSTANCES, str)) if _INSTANCES in entry else None
    semantics_file = _below("semantic_mask", get(entry, _SEMANTICS, str)) if _SEMANTICS in entry else None
    if semantics_file is not None and instances_file is None:
        raise BrokenEntryError(f"it has {_SEMANTICS!r} without {_INSTANCES!r}: classes are those of instances")
    image = _image(get(entry, "img_path", str))
    scene, number = _frame_of(points_file)
    for file in (superpoints_file, instances_file, semantics_file):
        if file not in (None, points_file) and _frame_of(file) != (scene, number):
            raise BrokenEntryError(f"{file!r} is of another frame")
    _check_image(image, scene=scene, number=number)
    return FrameInfo(
        scene=scene,
        number=number,
        points_file=points_file,
        superpoints_file=superpoints_file,
        instances_file=instances_file,
        semantics_file=semantics_file,
        image=image,
        pose_c2w=_matrix(entry, "pose"),
        axis_align=_matrix(annotated, "axis_align_matrix"),
        features_file=get(entry, _FEATURES, str) if _FEATURES in entry else None,
        centred=centred,
    )


def _below(folder: str, stored: str) -> str:
    """The path below the data set's ``folder``; what stands before that in the pickle is where it was made."""
    parts = _parts(stored)
    if folder in parts:
        parts = parts[len(parts) - parts[::-1].index(folder) :]
    return _inside(parts, stored)


def _image(stored: str) -> str:
    """The path below the data set's root: ESAM's own pickles hold it as it was seen from ESAM's folder."""
    parts = _parts(stored)
    if _IMAGES in parts:
        parts = parts[len(parts) - 1 - parts[::-1].index(_IMAGES) :]
    return _inside(parts, stored)


def _parts(stored: str) -> list[str]:
    """Of a path; one that was written on Windows has backslashes, which no name here may hold."""
    return stored.replace("\\", "/").split("/")


def _inside(parts: list[str], stored: str) -> str:
    if not any(parts) or ".." in parts or not parts[0]:
        raise BrokenEntryError(f"path {stored!r} leaves the data set's folder")
    return "/".join(part for part in parts if part not in ("", "."))


def _frame_of(file: str) -> tuple[str, str]:
    """Scene and number of ``<scene>_<number>.bin`` or ``<scene>/<number>.bin``."""
    *folders, name = file.removesuffix(".bin").split("/")
    folder = folders[-1] if folders else ""
    whole = not folder or name.startswith(f"{folder}_") or "_" in name
    found = FRAME_ID.fullmatch(name if whole else f"{folder}_{name}")
    if not file.endswith(".bin") or found is None:
        raise BrokenEntryError(f"{file!r} is not of the form <scene>_<number>.bin or <scene>/<number>.bin")
    return found["scene"], found["number"]


def _check_image(image: str, *, scene: str, number: str) -> None:
    """Images may be named otherwise; but where the path says a scene or a number, it is the frame's."""
    *folders, name = image.split("/")
    stem = name.rpartition(".")[0] or name
    scenes = {part for part in folders if _SCAN.fullmatch(part)}
    other_number = stem.isdecimal() and number.isdecimal() and int(stem) != int(number)
    if (scenes and scene not in scenes) or other_number:
        raise BrokenEntryError(f"image {image!r} is of another frame")


def _matrix(holder: dict[Any, Any], key: str) -> np.ndarray:
    try:
        matrix = np.asarray(get(holder, key, (np.ndarray, list)))
    except ValueError:  # rows of different lengths
        matrix = np.empty(0)
    if matrix.shape != (4, 4) or matrix.dtype.kind not in "iuf":
        raise BrokenEntryError(f"{key!r} is not a 4x4 matrix of numbers")
    return matrix.astype(np.float64)


def _scan(entry: dict[Any, Any]) -> str:
    cloud = entry.get("point_cloud")
    return str(cloud.get("lidar_idx", "?")) if isinstance(cloud, dict) else "?"
