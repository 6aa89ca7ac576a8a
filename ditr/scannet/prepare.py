"""Makes the frames of a data set from ScanNet's raw files (docs/reference/esam.md, Raw data; Making a frame)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ditr.captures.files import write_whole
from ditr.captures.manifest import Settings, claim_folder
from ditr.captures.prepare import Preparation, none_made, prepare
from ditr.captures.raw_frame import PoseFile, RawFrame
from ditr.captures.scene import RawScene
from ditr.data.scannet_sv import INFO_FILES, Split
from ditr.data.scene_intrinsics import intrinsics_file, intrinsics_text
from ditr.errors import Code, DitrError
from ditr.geometry.camera import Intrinsics
from ditr.progress import Progress, silent
from ditr.scannet.pack import PackedSplit, pack
from ditr.scannet.scan import LABEL_MAP, ScanLabels, read_label_map
from ditr.scannet.scene_text import read_depth_intrinsics, scene_text_path
from ditr.scannet.splits import listed_frames, split_id

LINKED = ("2D", "3D", "meta_data")
"""What is not made but linked to where it lies."""


@dataclass(frozen=True, kw_only=True)
class ScanNetSettings:
    """What can be chosen."""

    seed: int
    superpoints: Literal["masks", "oversegmentation"]
    masks: Path | None
    """Folder of ``<scene>/<frame>.png`` label images; given exactly where ``superpoints`` is "masks"."""
    intrinsics: Literal["average", "scene"]
    """The declared ``camera`` for every scan, as in ESAM, or each scan's own depth camera."""
    camera: Intrinsics

    def settings(self) -> Settings:
        """As a folder keeps them."""
        others = {
            "masks": None if self.masks is None else str(self.masks.resolve()),
            "intrinsics": self.intrinsics,
            "camera": dataclasses.asdict(self.camera),
        }
        return Settings(seed=self.seed, superpoints=self.superpoints, others=others)


def prepare_scans(
    source: Path,
    out: Path,
    *,
    settings: ScanNetSettings,
    info_files: Mapping[Split, str] = INFO_FILES,
    workers: int,
    progress: Progress = silent,
) -> tuple[Preparation, dict[Split, PackedSplit]]:
    """Prepares the frames that ``source/meta_data`` lists into ``out``, which may be ``source`` itself, and packs them.

    Raises
    ------
    DitrError: as ``prepare``; no frame of a split could be made; a list, the table of labels or a scan's own camera is
        missing or broken.
    """
    splits = listed_frames(source)
    label_map = read_label_map(source / LABEL_MAP)
    out.mkdir(parents=True, exist_ok=True)
    claim_folder(out, settings.settings())
    _link(source, out)
    frames = [frame for split in splits.values() for frame in split]
    scenes = _scenes(frames, source=source, out=out, settings=settings, label_map=label_map)
    done = prepare(scenes, out, settings=settings.settings(), workers=workers, progress=progress)
    for split, of_split in splits.items():
        absent = {frame: why for frame, why in {**done.failed, **done.skipped}.items() if frame in of_split}
        if len(absent) == len(of_split):
            raise none_made(absent, out=out, split=split)
    return done, pack(out, info_files=info_files, skip_missing=True)


def _scenes(
    frames: Sequence[str], *, source: Path, out: Path, settings: ScanNetSettings, label_map: Mapping[str, int]
) -> list[RawScene]:
    numbers: dict[str, list[str]] = {}
    for frame in frames:
        scene, number = split_id(frame)
        numbers.setdefault(scene, []).append(number)
    found = []
    for scene, of_scene in sorted(numbers.items()):
        camera = _camera(source, out, scene, settings)
        found.append(
            RawScene(
                name=scene,
                frames=tuple(_frame(source, scene, number, camera, settings.masks) for number in of_scene),
                camera=camera,
                labels=ScanLabels(root=source, scene=scene, label_map=label_map),
            )
        )
    return found


def _frame(source: Path, scene: str, number: str, camera: Intrinsics, masks: Path | None) -> RawFrame:
    folder = source / "2D" / scene
    return RawFrame(
        number=number,
        colour=folder / "color" / f"{number}.jpg",
        depth=folder / "depth" / f"{number}.png",
        colour_camera=camera,
        depth_camera=camera,
        pose=PoseFile(path=folder / "pose" / f"{number}.txt"),
        masks=None if masks is None else masks / scene / f"{number}.png",
    )


def _camera(source: Path, out: Path, scene: str, settings: ScanNetSettings) -> Intrinsics:
    """The scan's camera; where it is its own, it is written for the reader of the prepared folder."""
    declared = settings.camera
    if settings.intrinsics == "average":
        return declared
    own = read_depth_intrinsics(scene_text_path(source, scene), width=declared.width, height=declared.height)
    write_whole(intrinsics_file(out, scene), intrinsics_text(own).encode())
    return own


def _link(source: Path, out: Path) -> None:
    """Makes the source's images, scans and lists appear in ``out``, which readers expect to be one folder."""
    for name in LINKED:
        target, link = (source / name).resolve(), out / name
        if not link.exists() and not link.is_symlink() and target.exists():
            link.symlink_to(target)
        elif link.resolve() != target:
            raise DitrError(
                f"is not the {name} of {source}",
                code=Code.DATASET,
                where=str(link),
                fix="import into a new folder, or remove what stands there",
            )
