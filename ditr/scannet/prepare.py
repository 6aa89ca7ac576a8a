"""Makes the frames of a data set from ScanNet's raw files: all cores, resumable, the same bytes however it is run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

from ditr.data.scannet_sv import INFO_FILES
from ditr.errors import Code, DitrError
from ditr.progress import Progress, silent
from ditr.scannet.files import sweep_parts
from ditr.scannet.manifest import PrepareSettings, claim_folder, write_manifest
from ditr.scannet.pack import PackedSplit, pack
from ditr.scannet.scan import LABEL_MAP, read_label_map
from ditr.scannet.splits import listed_frames, split_id
from ditr.scannet.work import FrameOutcome, ScanTask, make_scan

_LINKED = ("2D", "3D", "meta_data")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What became of every listed frame, and the info pickles of the good ones."""

    made: int
    kept: int
    """Frames that were there already."""
    skipped: Mapping[str, str]
    """Frame id -> why the scan has nothing usable in it."""
    failed: Mapping[str, str]
    """Frame id -> what is wrong with its files."""
    splits: Mapping[str, PackedSplit]


def prepare(
    source: Path,
    out: Path,
    *,
    settings: PrepareSettings,
    info_files: Mapping[str, str] = INFO_FILES,
    workers: int,
    progress: Progress = silent,
) -> Preparation:
    """Prepares the frames that ``source/meta_data`` lists into ``out``, which may be ``source`` itself.

    Frames whose files are all there are kept, so that a call after an interruption goes on. A frame with a missing or
    damaged file fails alone. ``DitrError`` where ``out`` was made with other settings or holds another's frames.
    """
    splits = listed_frames(source)
    label_map = read_label_map(source / LABEL_MAP)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".prepare.lock", timeout=0):
            claim_folder(out, settings)
            _link(source, out)
            sweep_parts(out)
            frames = [frame for split in splits.values() for frame in split]
            tasks = _tasks(frames, source=source, out=out, settings=settings, label_map=label_map)
            outcomes = _outcomes(tasks, workers=workers, total=len(frames), progress=progress)
            return _finish(out, settings, [outcomes[frame] for frame in frames], info_files)
    except Timeout as error:
        raise DitrError(
            "another preparation works on this folder", code=Code.DATASET, where=str(out), fix="wait until it is done"
        ) from error


def _tasks(
    frames: Sequence[str], *, source: Path, out: Path, settings: PrepareSettings, label_map: Mapping[str, int]
) -> list[ScanTask]:
    """One for each scan, so that its mesh is read once."""
    scenes: dict[str, list[str]] = {}
    for frame in frames:
        scenes.setdefault(split_id(frame)[0], []).append(frame)
    return [
        ScanTask(source=source, out=out, scene=scene, frames=tuple(ids), settings=settings, label_map=label_map)
        for scene, ids in sorted(scenes.items())
    ]


def _outcomes(tasks: Sequence[ScanTask], *, workers: int, total: int, progress: Progress) -> dict[str, FrameOutcome]:
    outcomes: dict[str, FrameOutcome] = {}
    progress("frames", 0, total)
    for scan in _run(tasks, workers):
        outcomes |= {outcome.frame_id: outcome for outcome in scan}
        progress("frames", len(outcomes), total)
    return outcomes


def _run(tasks: Sequence[ScanTask], workers: int) -> Iterator[list[FrameOutcome]]:
    """The scans' outcomes as they come."""
    if workers <= 1 or len(tasks) <= 1:
        with threadpool_limits(1):
            yield from map(make_scan, tasks)
        return
    # Forking a process that runs threads (a progress display, BLAS) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_start_worker) as pool:
        yield from _results(pool, tasks)


def _results(pool: Executor, tasks: Sequence[ScanTask]) -> Iterator[list[FrameOutcome]]:
    futures = [pool.submit(make_scan, task) for task in tasks]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise DitrError(
            "a worker process was killed, most likely for want of memory",
            code=Code.ENVIRONMENT,
            fix="call again with fewer --workers (a worker takes some 200 MB); what is done is kept",
        ) from error
    finally:
        for future in futures:
            future.cancel()


def _start_worker() -> None:
    """Files are written whole, so that a worker may end anywhere: at once on Ctrl-C, and with a killed parent.

    Where every core has a worker, threads of its own would only slow it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _finish(
    out: Path, settings: PrepareSettings, outcomes: Sequence[FrameOutcome], info_files: Mapping[str, str]
) -> Preparation:
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("made", "kept")}
    skipped, failed = (
        {outcome.frame_id: outcome.why for outcome in outcomes if outcome.state == state}
        for state in ("skipped", "failed")
    )
    write_manifest(out, settings, frames=sum(counts.values()), skipped=skipped, failed=failed)
    if not sum(counts.values()):
        raise _nothing(out, {**failed, **skipped})
    splits = pack(out, info_files=info_files, skip_missing=True)
    return Preparation(made=counts["made"], kept=counts["kept"], skipped=skipped, failed=failed, splits=splits)


def _nothing(out: Path, reasons: Mapping[str, str]) -> DitrError:
    examples = "".join(f"\n  {frame}: {why}" for frame, why in list(reasons.items())[:10])
    what = f"none of {len(reasons)} frames could be made{', the first are:' if reasons else ''}{examples}"
    return DitrError(what, code=Code.DATASET, where=str(out), fix="put the raw files in place and call again")


def _link(source: Path, out: Path) -> None:
    """Makes the source's images, scans and lists appear in ``out``, which readers expect to be one folder."""
    for name in _LINKED:
        target, link = (source / name).resolve(), out / name
        if not link.exists() and not link.is_symlink() and target.exists():
            link.symlink_to(target)
        elif link.resolve() != target:
            raise DitrError(
                f"is not the {name} of {source}",
                code=Code.DATASET,
                where=str(link),
                fix="name a new folder with --out, or remove what stands there",
            )
