"""Which frames each split has: ESAM's lists of frames, or every tenth exported frame of ScanNet's lists of scans."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ditr.errors import Code, DitrError

SPLITS = ("train", "val")
FRAME_STEP = 200
"""Frame numbers of single-view data are multiples of this: every tenth of the frames exported at stride 20."""
_FRAME = re.compile(r"(scene\d{4}_\d{2})_(\d+)")
_SCAN = re.compile(r"scene\d{4}_\d{2}")


def split_id(frame_id: str) -> tuple[str, str]:
    """Scene and frame number of ``scene0000_00_200``."""
    scene, number = frame_id.rsplit("_", 1)
    return scene, number


def listed_frames(root: Path) -> dict[str, tuple[str, ...]]:
    """Frame ids of each split of a folder with ``meta_data`` and ``2D``, in the order of its lists.

    ``meta_data/scannetv2_sv_<split>.txt`` names frames; without it the scans of ``meta_data/scannetv2_<split>.txt``
    have those frames of ``2D/<scene>/color`` whose number is a multiple of 200 (reference: ESAM sections 1.1, 1.2).
    ``DitrError`` where a list is missing or broken, or a frame is listed twice.
    """
    frames = {split: _frames_of_split(root, split) for split in SPLITS}
    shared = sorted(set(frames["train"]) & set(frames["val"]))
    if shared:
        raise _broken(root / "meta_data", f"{len(shared)} frames are in both splits, the first is {shared[0]}")
    return frames


def read_frame_list(path: Path) -> tuple[str, ...]:
    """The frame ids of a list, one a line; blank lines are left out."""
    return _read_list(path, lambda line: _FRAME.fullmatch(line) is not None, what="scene0000_00_200")


def _frames_of_split(root: Path, split: str) -> tuple[str, ...]:
    frames, scans = (root / "meta_data" / f"scannetv2_{kind}{split}.txt" for kind in ("sv_", ""))
    if frames.is_file():
        return read_frame_list(frames)
    if not scans.is_file():
        raise DitrError(
            f"neither {frames.name} (frames) nor {scans.name} (scans) is there",
            code=Code.DATASET,
            where=str(frames.parent),
            fix="copy ESAM's data/scannet200-sv/meta_data there; it holds the lists of frames and of scans",
        )
    scenes = _read_list(scans, lambda line: _SCAN.fullmatch(line) is not None, what="scene0000_00")
    return tuple(frame for scene in sorted(scenes) for frame in _exported_frames(root, scene))


def _exported_frames(root: Path, scene: str) -> list[str]:
    folder = root / "2D" / scene / "color"
    if not folder.is_dir():
        raise DitrError(
            f"no colour images of {scene}, which the list of scans names",
            code=Code.DATASET,
            where=str(folder),
            fix="export the scan's frames at stride 20, or take it out of the list",
        )
    numbers = sorted(int(path.stem) for path in folder.glob("*.jpg") if path.stem.isdecimal())
    return [f"{scene}_{number}" for number in numbers if number % FRAME_STEP == 0]


def _read_list(path: Path, fits: Callable[[str], bool], *, what: str) -> tuple[str, ...]:
    entries: dict[str, int] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        entry = line.strip()
        if not entry:
            continue
        if not fits(entry):
            raise _broken(f"{path}:{number}", f"{entry!r} is not of the form {what}")
        if entry in entries:
            raise _broken(f"{path}:{number}", f"{entry} stands in line {entries[entry]} too")
        entries[entry] = number
    return tuple(entries)


def _broken(where: object, what: str) -> DitrError:
    fix = "use the lists of ESAM's data/scannet200-sv/meta_data, or correct this one"
    return DitrError(what, code=Code.DATASET, where=str(where), fix=fix)
