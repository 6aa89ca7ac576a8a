"""Info pickles: which frames a split has and where their files lie (docs/reference/esam.md, Info pickles).

Four forms are read: single frames as ESAM's tools/create_data.py first writes them (a list, here "v1") and as it leaves
them (a dict, "v2"), with or without ``clip_feat_path``; and scans with lists of frames ("multi-view"), v1 or v2, whose
frames are taken one by one. Single frames are written as v2.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ditr.data.classes import THING_NAMES
from ditr.data.info_entries import NUM_POINT_FEATURES, BrokenEntryError, FrameInfo, frame_info, get, single_entries
from ditr.data.safe_pickle import load_plain
from ditr.errors import Code, DitrError
from ditr.files import replacing

__all__ = ["FrameInfo", "InfoFile", "read_infos", "read_sound_infos", "write_infos"]

INFO_VERSION = "1.1"
_DATASET = "scannet200_sv"
_REBUILD = "rebuild it with ESAM's tools/create_data.py or `ditr data pack`"
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class InfoFile:
    """One split."""

    dataset: str
    categories: Mapping[str, int]
    """Thing class name -> thing label."""
    frames: tuple[FrameInfo, ...]


def read_infos(path: Path) -> InfoFile:
    """Reads one split.

    ``DitrError`` where the file is missing, holds anything but data or is no info pickle; broken entries are all looked
    at and told at once, with their count and the first ten.
    """
    infos, broken = read_sound_infos(path)
    if broken:
        shown = "".join(f"\n  {line}" for line in broken[:_SHOWN])
        more = f"\n  and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        count = f"{len(broken)} mistake{'s' * (len(broken) > 1)} beside {len(infos.frames)} sound frames"
        raise _no_infos(path, f"{count}:{shown}{more}")
    return infos


def read_sound_infos(path: Path) -> tuple[InfoFile, tuple[str, ...]]:
    """The frames of a split's sound entries, each once, and what is wrong with the other entries.

    ``DitrError`` where the file is missing, holds anything but data or is no info pickle.
    """
    try:
        content = load_plain(path.read_bytes(), where=str(path))
    except FileNotFoundError as error:
        raise DitrError("no such info pickle", code=Code.DATASET, where=str(path), fix=_REBUILD) from error
    dataset, categories, entries = _parts(content, path)
    frames, broken = _read_entries(entries)
    counts = Counter(frame.id for frame in frames)
    broken += [f"frame {frame_id} is listed {count} times" for frame_id, count in counts.items() if count > 1]
    if not frames and not broken:
        raise _no_infos(path, "it lists no frames")
    once = {frame.id: frame for frame in reversed(frames)}  # of a repeated frame the first
    sound = tuple(frame for frame in frames if once[frame.id] is frame)
    return InfoFile(dataset=dataset, categories=categories, frames=sound), tuple(broken)


def write_infos(path: Path, infos: InfoFile, *, image_root: str = "") -> None:
    """Writes one split as v2 so that ESAM under numpy 1 reads it too; whole or not at all.

    ESAM joins every path with the data set's folder but the image's, which it opens from where it was started:
    ``image_root``, such as ``./data/scannet200-sv``, is put before those. ``DitrError`` for frames of multi-view infos,
    whose points v2 for single frames cannot tell from centred ones.
    """
    raw_world = [frame.id for frame in infos.frames if not frame.centred]
    if raw_world:
        what = f"{len(raw_world)} frames are not centred, the first is {raw_world[0]}; they cannot be written"
        raise DitrError(what, code=Code.DATASET, where=str(path), fix="use the multi-view info pickle as it is")
    content = {
        "metainfo": {
            "categories": dict(infos.categories),
            "dataset": infos.dataset,
            "info_version": INFO_VERSION,
        },
        "data_list": [_entry(frame, image_root=image_root) for frame in infos.frames],
    }
    # Protocol 2 writes module names as plain lines, without lengths, so that numpy 2's own can become numpy 1's,
    # which both versions know.
    text = pickle.dumps(content, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with replacing(path) as beside:
        beside.write_bytes(text)


def _entry(frame: FrameInfo, *, image_root: str) -> dict[str, Any]:
    entry = {
        "lidar_points": {"num_pts_feats": NUM_POINT_FEATURES, "lidar_path": frame.points_file},
        "pts_semantic_mask_path": frame.semantics_file,
        "pts_instance_mask_path": frame.instances_file,
        "super_pts_path": frame.superpoints_file,
        "img_path": f"{image_root.rstrip('/')}/{frame.image}" if image_root else frame.image,
        "pose": np.ascontiguousarray(frame.pose_c2w, dtype=np.float64),
        "axis_align_matrix": frame.axis_align.tolist(),
        "instances": [],
        "clip_feat_path": frame.features_file,
    }
    return {key: value for key, value in entry.items() if value is not None}


def _parts(content: object, path: Path) -> tuple[str, dict[str, int], list[object]]:
    """Name, categories and entries; v1 has only entries, and gets what ESAM's conversion to v2 would add."""
    if isinstance(content, list):
        return _DATASET, {name: label for label, name in enumerate(THING_NAMES)}, content
    try:
        metainfo = get(content, "metainfo", dict)
        categories = {str(name): int(label) for name, label in get(metainfo, "categories", dict).items()}
        return str(get(metainfo, "dataset", str)), categories, get(content, "data_list", list)
    except (BrokenEntryError, TypeError, ValueError) as error:
        raise _no_infos(path, f"{error}: it is no info pickle, neither v1 nor v2") from error


def _read_entries(entries: list[object]) -> tuple[list[FrameInfo], list[str]]:
    """The frames of the sound entries, and what is wrong with the others."""
    frames: list[FrameInfo] = []
    broken: list[str] = []
    for index, entry in enumerate(entries):
        try:
            singles, centred = single_entries(entry)
        except BrokenEntryError as error:
            broken.append(f"entry {index}: {error}")
            continue
        for single in singles:
            try:
                frames.append(frame_info(single, centred=centred))
            except BrokenEntryError as error:
                broken.append(f"entry {index}: {error}")
    return frames, broken


def _no_infos(path: Path, what: str) -> DitrError:
    return DitrError(what, code=Code.DATASET, where=str(path), fix=_REBUILD)
