"""The frames of each split by a folder's ``meta_data``: ESAM's lists of frames, or ScanNet's lists of scans."""

from __future__ import annotations

import re
from pathlib import Path

from ditr.data.scannet_sv import Split
from ditr.data_check.frame_list import FRAME_LISTS, read_frame_list
from ditr.errors import Code, DitrError
from ditr.files import read_text

FRAME_STEP = 200
"""Frame numbers of single-view data are multiples of this: every tenth of the frames exported at stride 20."""
_SCAN_LISTS = {split: f"meta_data/scannetv2_{split}.txt" for split in FRAME_LISTS}
_SCAN = re.compile(r"scene\d{4}_\d{2}")


def listed_frames(root: Path) -> dict[Split, tuple[str, ...]]:
    """Frame ids of each split of a folder with ``meta_data`` and ``2D``, in the order of its lists.

    ``meta_data/scannetv2_sv_<split>.txt`` names frames; without it the scans of ``meta_data/scannetv2_<split>.txt``
    have those frames of ``2D/<scene>/color`` whose number is a multiple of 200 (docs/reference/esam.md,
    Making a frame 1).
    ``DitrError`` where a list is missing or broken, or a frame is in both splits.
    """
    frames = {split: _frames_of_split(root, split) for split in FRAME_LISTS}
    shared = sorted(set(frames["train"]) & set(frames["val"]))
    if shared:
        raise DitrError(
            f"{len(shared)} frames are in both splits, the first is {shared[0]}",
            code=Code.DATASET,
            where=str(root / "meta_data"),
            fix="take them out of one of the two lists",
        )
    return frames


def split_id(frame_id: str) -> tuple[str, str]:
    """Scene and frame number of ``scene0000_00_200``."""
    scene, number = frame_id.rsplit("_", 1)
    return scene, number


def _frames_of_split(root: Path, split: Split) -> tuple[str, ...]:
    frames, scans = root / FRAME_LISTS[split], root / _SCAN_LISTS[split]
    if frames.is_file():
        return read_frame_list(frames)
    if not scans.is_file():
        raise DitrError(
            f"neither {frames.name} (frames) nor {scans.name} (scans) is there",
            code=Code.DATASET,
            where=str(frames.parent),
            fix="copy ESAM's data/scannet200-sv/meta_data there; it holds the lists of frames and of scans",
        )
    return tuple(frame for scene in _read_scans(scans) for frame in _exported_frames(root, scene))


def _read_scans(path: Path) -> list[str]:
    """Sorted, as ESAM goes through them."""
    scenes = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    wrong = [line for line in scenes if not _SCAN.fullmatch(line)]
    if wrong or not scenes:
        what = f"{len(wrong)} lines name no scan, the first is {wrong[0]!r}" if wrong else "the list is empty"
        fix = "write one scan a line, such as scene0000_00"
        raise DitrError(what, code=Code.DATASET, where=str(path), fix=fix)
    return sorted(set(scenes))


def _exported_frames(root: Path, scene: str) -> list[str]:
    folder = root / "2D" / scene / "color"
    if not folder.is_dir():
        raise DitrError(
            f"no colour images of {scene}, which the list of scans names",
            code=Code.DATASET,
            where=str(folder),
            fix="export the scan's frames at stride 20, or take it out of the list",
        )
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    wanted = [path for path in files if path.stem.isdecimal() and int(path.stem) % FRAME_STEP == 0]
    misnamed = [path.name for path in wanted if path.name != f"{int(path.stem)}.jpg"]
    if misnamed or not wanted:
        what = f"holds {len(files)} files, none of them <multiple of {FRAME_STEP}>.jpg"
        if misnamed:
            what = f"{len(misnamed)} files are not named <multiple of {FRAME_STEP}>.jpg, the first is {misnamed[0]}"
        fix = f"name frames as ScanNet's exporter does, 0.jpg, {FRAME_STEP}.jpg, and their depth and poses alike"
        raise DitrError(what, code=Code.DATASET, where=str(folder), fix=fix)
    return [f"{scene}_{number}" for number in sorted(int(path.stem) for path in wanted)]
