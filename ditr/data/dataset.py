"""Opens a data set by its registry name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import xxhash

from ditr.catalog import locate_dataset
from ditr.data.class_table import SCANNET200, ClassTable, own_classes
from ditr.data.info_pickle import InfoFile, read_infos, read_sound_infos
from ditr.data.manifest import read_manifest
from ditr.data.scannet_sv import (
    INFO_FILES,
    MANIFEST,
    MULTI_VIEW_INFO_FILES,
    FrameSet,
    Split,
)
from ditr.data.scene_intrinsics import intrinsics_file, intrinsics_sentence, read_scene_intrinsics
from ditr.errors import Code, DitrError
from ditr.geometry.camera import SCANNET_SV_INTRINSICS, Intrinsics
from ditr.spec.entries import FolderEntry, SynthRoomsEntry
from ditr.spec.registry import Registry

SPLITS: tuple[Split, ...] = ("train", "val")
Report = Callable[[str, str], None]
"""Takes the kind of a mistake and what is wrong where."""
_HEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True, repr=False)
class Dataset:
    """Frames in a train and a val split, or in one of them."""

    name: str
    root: Path
    digest: str
    """Of what was read; keys feature stores. Embedded data by content; folders by info pickles, sizes and the first
    4 KiB of each file of points and labels, which a second preparation changes in every frame (its draws have no seed).
    """
    splits: Mapping[Split, FrameSet]
    """Those that it has, train first."""

    @property
    def train(self) -> FrameSet:
        """``DitrError`` if it has no such split."""
        return self._split("train")

    @property
    def val(self) -> FrameSet:
        """``DitrError`` if it has no such split."""
        return self._split("val")

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all frames, train before val."""
        return tuple(frame_id for frames in self.splits.values() for frame_id in frames.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def require_labels(self, split: Split) -> None:
        """Raises DitrError if the split is not there, or a frame of it has no labels: it tells a training what is void
        no more than an evaluation."""
        bare = self._split(split).unlabelled()
        if bare:
            raise DitrError(
                f"{len(bare)} of {len(self._split(split))} frames of {split} have no labels, the first is {bare[0]}; "
                "nothing can be trained or evaluated on them",
                code=Code.DATASET,
                where=str(self.root),
                fix=f"Use a labelled data set; `ditr predict` finds the instances of {self.name} with a trained model.",
            )

    def find(self, frame_id: str) -> tuple[FrameSet, int]:
        """The split that has the frame, and its index there.

        Raises
        ------
        DitrError: neither has it; with near names.
        """
        for frames in self.splits.values():
            if frame_id in frames.ids:
                return frames, frames.ids.index(frame_id)
        known = self.ids
        close = difflib.get_close_matches(frame_id, known, n=3, cutoff=0.3) or known[:3]
        raise DitrError(
            f"data set {self.name} has no frame {frame_id!r}",
            code=Code.DATASET,
            where=str(self.root),
            fix=f"use one of its {len(known)} frames, such as {', '.join(close)}",
        )

    def __repr__(self) -> str:
        sizes = " + ".join(str(len(frames)) for frames in self.splits.values())
        return f"Dataset({self.name!r}, {sizes} frames, {str(self.root)!r})"

    @property
    def intrinsics(self) -> str:
        """Which intrinsics the frames use, in one sentence for the results."""
        splits = tuple(self.splits.values())
        scenes = {info.scene for frames in splits for info in frames.infos.frames}
        with_file = {scene for frames in splits for scene in frames.scene_intrinsics} & scenes
        return intrinsics_sentence(splits[0].intrinsics, scenes=len(scenes), with_file=len(with_file))

    def _split(self, split: Split) -> FrameSet:
        if split not in self.splits:
            has = " and ".join(f"{name} ({len(frames)} frames)" for name, frames in self.splits.items())
            raise DitrError(
                f"data set {self.name} has no split {split}, it has {has}",
                code=Code.DATASET,
                where=str(self.root),
                fix=f"Name a data set with {split}, or add its info pickle to the data set's entry as infos.{split}.",
            )
        return self.splits[split]


def open_dataset(name: str, *, registry: Registry, report: Report | None = None) -> Dataset:
    """The data set of registry entry ``name``.

    Parameters
    ----------
    report: that of ``open_folder``.

    Raises
    ------
    DitrError: the user's folder is missing or incomplete, or an embedded set is not made yet (``rooms.make_missing``).
    """
    entry = registry.dataset(name)
    root = locate_dataset(name, entry)
    if isinstance(entry, SynthRoomsEntry):
        _require_made(name, root)
        return open_folder(root, name=name, report=report)
    _require_folder(name, entry, root)
    return open_folder(
        root,
        name=name,
        info_files=entry.infos,
        intrinsics=Intrinsics(**entry.intrinsics.model_dump()),
        classes=own_classes(entry.classes, stuff=entry.stuff) if entry.classes else SCANNET200,
        report=report,
    )


def open_folder(
    root: Path,
    *,
    name: str,
    info_files: Mapping[Split, str] | None = None,
    intrinsics: Intrinsics = SCANNET_SV_INTRINSICS,
    classes: ClassTable = SCANNET200,
    report: Report | None = None,
) -> Dataset:
    """A folder in the layout of ScanNet200-SV or -MV.

    ``info_files`` names each split's; by default they have ESAM's names, those for single frames if the folder has
    both kinds, of the splits that are there, and the digest is the manifest's if one can be read, as in every embedded
    set. ``DitrError`` for broken
    entries of info pickles and for a frame in both splits: a score on frames that were trained on says nothing. With
    ``report`` these are told to it instead and the sound entries are opened.
    """
    made = read_manifest(root) if info_files is None else None
    if info_files is None:
        info_files = _usual_info_files(root)
    infos = {split: _read(root / info_files[split], report) for split in SPLITS if split in info_files}
    scenes = {info.scene for split in infos.values() for info in split.frames}
    of_scenes = read_scene_intrinsics(root, scenes=scenes, default=intrinsics)
    splits = {
        split: FrameSet(root, infos=read, intrinsics=intrinsics, scene_intrinsics=of_scenes, classes=classes)
        for split, read in infos.items()
    }
    if len(splits) == len(SPLITS):
        _require_disjoint(splits["train"], splits["val"], where=root / info_files["val"], report=report)
    if made and not of_scenes:  # the generator writes no intrinsics: with some it is not the set that was made
        digest = made.digest
    else:
        digest = _folder_digest(root, info_files, tuple(splits.values()))
    return Dataset(name=name, root=root, digest=digest, splits=splits)


def _read(path: Path, report: Report | None) -> InfoFile:
    if report is None:
        return read_infos(path)
    infos, broken = read_sound_infos(path)
    for text in broken:
        report("info pickle", f"{path}: {text}")
    return infos


def _require_disjoint(train: FrameSet, val: FrameSet, *, where: Path, report: Report | None) -> None:
    shared = sorted(set(train.ids) & set(val.ids))
    if report is not None:
        for frame in shared:
            report("frame in both splits", f"{where}: {frame} is in train too")
    elif shared:
        raise DitrError(
            f"{len(shared)} of its {len(val)} frames are in the training split too, the first is {shared[0]}",
            code=Code.DATASET,
            where=str(where),
            fix="take them out of one of the two info pickles; `ditr data check` also finds shared scenes",
        )


def _usual_info_files(root: Path) -> dict[Split, str]:
    """Of the splits that are there; of both single-view ones where there is none, for the error to name."""
    for files in (INFO_FILES, MULTI_VIEW_INFO_FILES):
        if there := {split: files[split] for split in SPLITS if (root / files[split]).is_file()}:
            return there
    return {split: INFO_FILES[split] for split in SPLITS}


def _require_made(name: str, root: Path) -> None:
    if not (root / MANIFEST).is_file():
        fix = f"Make it: ditr data make {name}"
        raise DitrError(f"data set {name!r} is not made yet", code=Code.DATASET, where=str(root), fix=fix)


def _require_folder(name: str, entry: FolderEntry, root: Path) -> None:
    missing = [file for file in entry.infos.values() if not (root / file).is_file()]
    if root.is_dir() and not missing:
        return
    what = f"data set {name!r} lacks {', '.join(missing)}" if root.is_dir() else f"no folder for data set {name!r}"
    raise DitrError(
        what,
        code=Code.DATASET,
        where=str(root),
        fix=(
            "make it with `ditr data import`, of ScanNet also by ESAM's scripts, and set DITR_DATA to the folder that "
            f"holds {entry.path!r} (or its full path as `path` in registry/datasets/{name}.yaml); "
            "without the data run `ditr run specs/fpn_inject.yaml`, which uses the embedded rooms"
        ),
    )


def _folder_digest(root: Path, info_files: Mapping[Split, str], splits: tuple[FrameSet, ...]) -> str:
    digest = xxhash.xxh3_128()
    for file in info_files.values():
        digest.update((root / file).read_bytes())
    for frames in splits:
        for index, info in enumerate(frames.infos.frames):
            _add(digest, root / info.image, head_bytes=0)
            for path in frames.paths(index).values():
                _add(digest, path, head_bytes=_HEAD_BYTES)
    if splits[0].classes != SCANNET200:
        digest.update(repr(splits[0].classes).encode())
    for scene in sorted(splits[0].scene_intrinsics):
        digest.update(intrinsics_file(root, scene).read_bytes())
    return digest.hexdigest()


def _add(digest: xxhash.xxh3_128, path: Path, *, head_bytes: int) -> None:
    """Name, size and first bytes of one file; a missing one counts as such."""
    try:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        if head_bytes:
            with path.open("rb", buffering=0) as file:
                digest.update(file.read(head_bytes))
    except FileNotFoundError:
        digest.update(f"{path.name}\0missing\0".encode())
