"""Info pickles from files and lists (docs/reference/esam.md, Info pickles; Frame lists; Feature paths)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ditr.data.classes import THING_NAMES
from ditr.data.info_pickle import FrameInfo, InfoFile, write_infos
from ditr.data.scannet_sv import (
    INFO_FILES,
    INSTANCES,
    POINTS,
    SEMANTICS,
    SUPERPOINTS,
    Split,
    read_stored_pose,
    stored_pose_path,
)
from ditr.errors import Code, DitrError
from ditr.progress import Progress, silent
from ditr.scannet.scene_text import read_axis_alignment, scene_text_path
from ditr.scannet.splits import FRAME_STEP, listed_frames, split_id

FEATURES_TEMPLATE = "clip_feat/{scene}/{frame}.pt"
"""Where the fork keeps the feature map of ``2D/<scene>/color/<frame>.jpg``: without the folder ``color``."""
_EXAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class PackedSplit:
    """What was written for one split."""

    path: Path
    frames: int
    lacking: tuple[str, ...]
    """Listed frames that were left out, each with the first file that it lacks."""
    unaligned_scenes: int
    """Scenes without ``3D/<scene>/<scene>.txt``, whose axis alignment is written as the identity."""
    features_path: Path | None = None
    features_named: int = 0
    """Frames with a ``clip_feat_path``: those whose number is a multiple of 200."""
    features_there: int = 0
    """Those of them whose file exists now."""


def pack(
    root: Path,
    *,
    info_files: Mapping[Split, str] = INFO_FILES,
    features: str | None = None,
    image_root: str = "",
    skip_missing: bool = False,
    progress: Progress = silent,
) -> dict[Split, PackedSplit]:
    """Writes the info pickle of each split, in the order of the lists, and with ``features`` also its ``_clip.pkl``.

    ``features`` is a template of ``clip_feat_path`` relative to ``root``, such as ``FEATURES_TEMPLATE``; ``image_root``
    is for ESAM, see ``write_infos``. ``DitrError``, and nothing written, where listed frames lack a file, unless
    ``skip_missing`` leaves them out, and where a split has no frame at all.
    """
    if features is not None:
        _require_template(features)
    lists = listed_frames(root)
    total = sum(map(len, lists.values()))
    found: dict[Split, tuple[list[FrameInfo], list[str]]] = {}
    alignments: dict[str, np.ndarray | None] = {}
    done = 0
    for split, frames in lists.items():
        infos, lacking = found.setdefault(split, ([], []))
        for frame_id in frames:
            _add(root, frame_id, alignments=alignments, infos=infos, lacking=lacking)
            done += 1
            progress("frames", done, total)
    _require_frames(root, found, skip_missing=skip_missing)
    return {
        split: _write(root / info_files[split], infos, lacking, alignments, features=features, image_root=image_root)
        for split, (infos, lacking) in found.items()
    }


def _add(
    root: Path,
    frame_id: str,
    *,
    alignments: dict[str, np.ndarray | None],
    infos: list[FrameInfo],
    lacking: list[str],
) -> None:
    """Adds the frame to ``infos``, or to ``lacking`` with the reason."""
    scene, number = split_id(frame_id)
    file, image = f"{frame_id}.bin", f"2D/{scene}/color/{number}.jpg"
    pose_file = stored_pose_path(root, scene, number)
    columns = (root / kind / file for kind in (POINTS, SUPERPOINTS, INSTANCES, SEMANTICS))
    missing = next((path for path in (*columns, root / image, pose_file) if not path.is_file()), None)
    if missing is not None:
        lacking.append(f"{frame_id}: {missing.relative_to(root)}")
        return
    if scene not in alignments:
        text = scene_text_path(root, scene)
        alignments[scene] = read_axis_alignment(text) if text.is_file() else None
    alignment = alignments[scene]
    infos.append(
        FrameInfo(
            scene=scene,
            number=number,
            points_file=file,
            superpoints_file=file,
            instances_file=file,
            semantics_file=file,
            image=image,
            pose_c2w=read_stored_pose(pose_file),
            axis_align=np.eye(4) if alignment is None else alignment,
        )
    )


def _require_frames(
    root: Path, found: Mapping[Split, tuple[list[FrameInfo], list[str]]], *, skip_missing: bool
) -> None:
    empty = [split for split, (infos, _) in found.items() if not infos]
    lacking = [entry for _, entries in found.values() for entry in entries]
    if not empty and (skip_missing or not lacking):
        return
    frames = sum(len(infos) for infos, _ in found.values())
    examples = "".join(f"\n  {entry}" for entry in lacking[:_EXAMPLES])
    raise DitrError(
        f"{len(lacking)} of {frames + len(lacking)} listed frames lack a file, the first are:{examples}",
        code=Code.DATASET,
        where=str(root),
        fix=(
            f"prepare a frame of {' and '.join(empty)} at least: neither pickle may be empty"
            if empty
            else "prepare them with `ditr data import scannet`, or leave them out with --skip-missing"
        ),
    )


def _write(
    path: Path,
    infos: Sequence[FrameInfo],
    lacking: Sequence[str],
    alignments: Mapping[str, np.ndarray | None],
    *,
    features: str | None,
    image_root: str,
) -> PackedSplit:
    write_infos(path, _info_file(infos), image_root=image_root)
    unaligned = sum(alignments[scene] is None for scene in {info.scene for info in infos})
    packed = PackedSplit(path=path, frames=len(infos), lacking=tuple(lacking), unaligned_scenes=unaligned)
    if features is None:
        return packed
    with_features = [replace(info, features_file=_features_file(features, info)) for info in infos]
    features_path = path.with_name(f"{path.stem}_clip.pkl")
    write_infos(features_path, _info_file(with_features), image_root=image_root)
    named = [info.features_file for info in with_features if info.features_file is not None]
    there = sum((path.parent / file).is_file() for file in named)
    return replace(packed, features_path=features_path, features_named=len(named), features_there=there)


def _info_file(infos: Sequence[FrameInfo]) -> InfoFile:
    categories = {name: label for label, name in enumerate(THING_NAMES)}
    return InfoFile(dataset="scannet200_sv", categories=categories, frames=tuple(infos))


def _features_file(template: str, info: FrameInfo) -> str | None:
    """None for frames between the multiples of 200, which the fork leaves without a path too."""
    if int(info.number) % FRAME_STEP:
        return None
    return template.replace("{scene}", info.scene).replace("{frame}", info.number)


def _require_template(template: str) -> None:
    rest = template.replace("{scene}", "", 1).replace("{frame}", "", 1)
    complete = "{scene}" in template and "{frame}" in template and not {"{", "}"} & set(rest)
    if not complete or Path(template).is_absolute() or ".." in Path(template).parts:
        raise DitrError(
            f"{template!r} is no template of feature files",
            code=Code.DATASET,
            where="--features-template",
            fix=f"use {{scene}} and {{frame}} once each in a path below the folder, such as {FEATURES_TEMPLATE}",
        )
