"""A capture becomes a data set: frames, info pickle and registry entry, so that every command knows it by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ditr.captures.capture import Format, read_capture
from ditr.captures.files import pose_file, write_whole
from ditr.captures.manifest import Settings
from ditr.captures.prepare import Preparation, prepare
from ditr.captures.raw_frame import RawFrame
from ditr.captures.scene import RawScene
from ditr.captures.work import image_file
from ditr.data.info_pickle import FrameInfo, InfoFile, write_infos
from ditr.data.scannet_sv import read_stored_pose
from ditr.data.scene_intrinsics import intrinsics_file, intrinsics_text
from ditr.errors import Code, DitrError
from ditr.geometry.camera import Intrinsics
from ditr.progress import Progress, silent

INFOS = "val.pkl"
"""The info pickle of what is imported: one split, which is looked at and not trained on."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import has left."""

    frames: Preparation
    scenes: tuple[str, ...]
    camera: Intrinsics
    """Of the first scene; the others have theirs in ``intrinsics/``."""
    masks: int
    """Frames whose superpoints are given by masks; those of the others were made here."""
    posed: int
    """Frames with a pose; the others stand in their own camera's frame."""


def import_capture(
    folder: Path,
    out: Path,
    *,
    format: Format,
    seed: int,
    every: int = 1,
    masks: Path | None = None,
    workers: int,
    progress: Progress = silent,
) -> Imported:
    """Makes a prepared folder of a capture; goes on where it was interrupted.

    Parameters
    ----------
    every: takes one of so many frames.
    masks: folder of ``<scene>/<number>.png`` or, of one scene, ``<number>.png`` label images of the size of the colour
        images, 0 = no mask; None makes superpoints here.

    Raises
    ------
    DitrError: as ``read_capture`` and ``prepare``.
    """
    scenes = read_capture(folder, format=format, every=every)
    if masks is not None:
        scenes = tuple(_with_masks(scene, masks, alone=len(scenes) == 1) for scene in scenes)
    others = {"format": format.name, "source": str(folder.resolve()), "every": every}
    others |= {"masks": None if masks is None else str(masks.resolve())}
    settings = Settings(seed=seed, superpoints="oversegmentation" if masks is None else "masks", others=others)
    done = prepare(scenes, out, settings=settings, workers=workers, progress=progress)
    for scene in scenes:
        write_whole(intrinsics_file(out, scene.name), intrinsics_text(scene.camera).encode())
    there = {*done.made, *done.kept}
    infos = InfoFile(dataset=format.name, categories={}, frames=tuple(_infos(scenes, out, there)))
    write_infos(out / INFOS, infos)
    frames = [frame for scene in scenes for frame in scene.frames if scene.frame_id(frame) in there]
    return Imported(
        frames=done,
        scenes=tuple(scene.name for scene in scenes),
        camera=scenes[0].camera,
        masks=sum(frame.masks is not None for frame in frames),
        posed=sum(frame.pose is not None for frame in frames),
    )


def _with_masks(scene: RawScene, masks: Path, *, alone: bool) -> RawScene:
    own = masks / scene.name
    folder = masks if alone and not own.is_dir() else own
    if not folder.is_dir():
        fix = "name a folder that has one with label images for each scene, or leave --masks out"
        raise DitrError("no folder of mask images", code=Code.DATASET, where=str(folder), fix=fix)
    frames = (dataclasses.replace(frame, masks=folder / f"{frame.number}.png") for frame in scene.frames)
    return dataclasses.replace(scene, frames=tuple(frames))


def _infos(scenes: Sequence[RawScene], out: Path, there: Collection[str]) -> list[FrameInfo]:
    return [_info(scene, frame, out) for scene in scenes for frame in scene.frames if scene.frame_id(frame) in there]


def _info(scene: RawScene, frame: RawFrame, out: Path) -> FrameInfo:
    file = f"{scene.frame_id(frame)}.bin"
    return FrameInfo(
        scene=scene.name,
        number=frame.number,
        points_file=file,
        superpoints_file=file,
        instances_file=None,
        semantics_file=None,
        image=image_file(scene.name, frame, camera=scene.camera),
        pose_c2w=read_stored_pose(pose_file(out, scene.name, frame.number)),
        axis_align=np.eye(4),
    )
