"""Makes a whole embedded data set: frames on several processes, info pickles, manifest; atomically."""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import xxhash
from filelock import FileLock

from ditr.catalog import locate_dataset
from ditr.data.classes import THING_NAMES
from ditr.data.info_pickle import FrameInfo, InfoFile, write_infos
from ditr.data.manifest import read_manifest
from ditr.data.scannet_sv import INFO_FILES, MANIFEST
from ditr.errors import Code, DitrError
from ditr.machine_errors import size_of, unwritten
from ditr.progress import Progress, silent
from ditr.rooms.frames import FrameRecord, FrameTask, make_frame
from ditr.spec.entries import SYNTHROOMS_VERSION, SplitEntry, SynthRoomsEntry
from ditr.spec.registry import Registry
from ditr.workers import born_deaf, end_with_parent

_MAX_SCENES = 10_000


def make_missing(name: str, *, registry: Registry, progress: Progress = silent) -> None:
    """Makes the data set of registry entry ``name`` where it is an embedded one that is not there yet.

    One whose manifest cannot be read any more is made again.
    """
    entry = registry.dataset(name)
    if isinstance(entry, SynthRoomsEntry):
        root = locate_dataset(name, entry)
        if _is_damaged(root):
            with _lock(root):
                if _is_damaged(root):  # another process may have been first
                    shutil.rmtree(root)
        make_once(entry, root, progress=progress)


def make_once(entry: SynthRoomsEntry, root: Path, *, progress: Progress = silent) -> None:
    """Makes an embedded data set unless it is there; of several processes one makes it and the others wait."""
    if (root / MANIFEST).is_file():
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with _lock(root):
        if not (root / MANIFEST).is_file():
            for left in _drafts(root):  # of killed processes: whoever makes this data set holds the lock
                shutil.rmtree(left)
            make(entry, root, workers=len(os.sched_getaffinity(0)), progress=progress)


def make(entry: SynthRoomsEntry, folder: Path, *, workers: int, progress: Progress) -> None:
    """Makes the data set of ``entry`` at ``folder``, which must not exist; there is all of it or nothing.

    The same entry gives the same bytes, whatever the number of worker processes.
    """
    if folder.exists():
        raise DitrError("the folder already exists", code=Code.DATASET, where=str(folder), fix="name a new folder")
    last = entry.first_scene + entry.train.scenes + entry.val.scenes
    if last > _MAX_SCENES:
        raise DitrError(
            f"scene numbers go up to {last - 1}, but names have four digits", code=Code.DATASET, fix="use fewer scenes"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    beside.chmod(0o755)
    try:
        _fill(entry, beside, workers=workers, progress=progress)
        beside.replace(folder)
    except OSError as error:
        made = sum(map(size_of, beside.rglob("*")))
        if (mistake := unwritten(error, path=folder, part=beside, needs=made)) is not None:
            raise mistake from error
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def content_digest(folder: Path) -> str:
    """xxh3-128 over names and contents of every file but the manifest, in sorted order."""
    digest = xxhash.xxh3_128()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST:
            content = path.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def _is_damaged(root: Path) -> bool:
    return (root / MANIFEST).is_file() and read_manifest(root) is None


def _drafts(root: Path) -> list[Path]:
    return [path for path in root.parent.glob(f".{glob.escape(root.name)}.*") if path.is_dir()]


def _lock(root: Path) -> FileLock:
    return FileLock(root.with_name(f".{root.name}.lock"))


def _fill(entry: SynthRoomsEntry, folder: Path, *, workers: int, progress: Progress) -> None:
    tasks = {
        "train": _tasks(entry, entry.train, folder, first=entry.first_scene),
        "val": _tasks(entry, entry.val, folder, first=entry.first_scene + entry.train.scenes),
    }
    every = [task for split in tasks.values() for task in split]
    records: dict[str, FrameRecord] = {}
    progress("rooms", 0, len(every))
    for record in _run(every, workers):
        records[record.id] = record
        progress("rooms", len(records), len(every))
    for split, name in INFO_FILES.items():
        write_infos(folder / name, _infos([records[task.id] for task in tasks[split]]))
    manifest = {
        "generator": "synthrooms",
        "version": SYNTHROOMS_VERSION,
        "entry": entry.model_dump(mode="json", exclude={"description"}),
        "digest": content_digest(folder),
        "frames": {
            task.id: {"split": split, **records[task.id].statistics} for split in tasks for task in tasks[split]
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _tasks(entry: SynthRoomsEntry, split: SplitEntry, folder: Path, *, first: int) -> list[FrameTask]:
    return [
        FrameTask(
            root=folder,
            scene=scene,
            index=index,
            seed=entry.seed,
            texture_share=entry.texture_share,
            path_share=index / max(1, split.frames - 1) if entry.camera == "path" else None,
        )
        for scene in range(first, first + split.scenes)
        for index in range(split.frames)
    ]


def _run(tasks: Sequence[FrameTask], workers: int) -> Iterator[FrameRecord]:
    if workers <= 1 or len(tasks) == 1:
        yield from map(make_frame, tasks)
        return
    # a fresh interpreter each: forking a process that runs threads (torch, a progress display) can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=end_with_parent) as pool:
        with born_deaf(signal.SIGINT):  # workers finish their frame and end with the pool
            made = pool.map(make_frame, tasks)
        yield from made


def _infos(records: Sequence[FrameRecord]) -> InfoFile:
    return InfoFile(
        dataset="scannet200_sv",
        categories={name: label for label, name in enumerate(THING_NAMES)},
        frames=tuple(_info(record) for record in records),
    )


def _info(record: FrameRecord) -> FrameInfo:
    file = f"{record.id}.bin"
    return FrameInfo(
        scene=record.id[:12],
        number=record.id[13:],
        points_file=file,
        superpoints_file=file,
        instances_file=file,
        semantics_file=file,
        image=f"2D/{record.id[:12]}/color/{record.id[13:]}.jpg",
        pose_c2w=np.array(record.pose_centered),
        axis_align=np.array(record.axis_align),
    )
