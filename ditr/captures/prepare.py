"""Makes the frames of a data set from a capture: all cores, resumable, the same bytes however it is run."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

from ditr.captures.files import sweep_parts
from ditr.captures.manifest import Settings, claim_folder, write_manifest
from ditr.captures.scene import RawScene
from ditr.captures.work import FrameOutcome, SceneTask, make_scene
from ditr.data.prepared import PREPARED
from ditr.errors import Code, DitrError
from ditr.progress import Progress, silent
from ditr.workers import born_deaf, end_with_parent

LOCK = ".prepare.lock"
"""Held while a folder is prepared."""
_FRAMES_A_TASK = 8
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What became of every frame."""

    made: tuple[str, ...]
    """Frame ids."""
    kept: tuple[str, ...]
    """Of frames that were there already."""
    changed: Mapping[str, str]
    """Of those made, frame id -> what of its capture is not as it was when the frame was made before."""
    skipped: Mapping[str, str]
    """Frame id -> why the capture has nothing usable in it."""
    failed: Mapping[str, str]
    """Frame id -> what is wrong with its files."""
    distance_m: Mapping[str, float]
    """Of those made with labels, how far half of the points are from the annotated scene at most."""


def prepare(
    scenes: Sequence[RawScene], out: Path, *, settings: Settings, workers: int, progress: Progress = silent
) -> Preparation:
    """Prepares the frames of the scenes into ``out``.

    Frames whose files are all there are kept, so that a call after an interruption goes on; those whose capture has
    changed since are made again. A frame with a missing or
    damaged file fails alone.

    Raises
    ------
    DitrError: ``out`` was made with other settings or holds another's frames; another process works on it; or no frame
        could be made.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / LOCK, timeout=0):
            claim_folder(out, settings)
            sweep_parts(out)
            tasks = [SceneTask(out=out, scene=part, seed=settings.seed) for scene in scenes for part in _parts(scene)]
            return _finish(out, settings, _outcomes(tasks, workers=workers, progress=progress))
    except Timeout as error:
        raise DitrError(
            "another preparation works on this folder", code=Code.DATASET, where=str(out), fix="wait until it is done"
        ) from error


def _parts(scene: RawScene) -> Iterator[RawScene]:
    """Of a scene with labels the whole, so that they are read once; of another some frames at a time."""
    size = len(scene.frames) if scene.labels is not None else _FRAMES_A_TASK
    for start in range(0, len(scene.frames), size):
        yield replace(scene, frames=scene.frames[start : start + size])


def _outcomes(tasks: Sequence[SceneTask], *, workers: int, progress: Progress) -> list[FrameOutcome]:
    """In the order of scenes and frames."""
    ids = [task.scene.frame_id(frame) for task in tasks for frame in task.scene.frames]
    outcomes: dict[str, FrameOutcome] = {}
    progress("frames", 0, len(ids))
    for scene in _run(tasks, workers):
        outcomes |= {outcome.frame_id: outcome for outcome in scene}
        progress("frames", len(outcomes), len(ids))
    return [outcomes[frame_id] for frame_id in ids]


def _finish(out: Path, settings: Settings, outcomes: Sequence[FrameOutcome]) -> Preparation:
    made, kept = (tuple(o.frame_id for o in outcomes if o.state == state) for state in ("made", "kept"))
    skipped, failed = ({o.frame_id: o.why for o in outcomes if o.state == state} for state in ("skipped", "failed"))
    write_manifest(out, settings, frames=(*made, *kept), skipped=skipped, failed=failed)
    if not made and not kept:
        raise none_made({**failed, **skipped}, out=out)
    changed = {o.frame_id: o.why for o in outcomes if o.state == "made" and o.why}
    distance_m = {o.frame_id: o.distance_m for o in outcomes if o.distance_m is not None}
    return Preparation(made=made, kept=kept, changed=changed, skipped=skipped, failed=failed, distance_m=distance_m)


def none_made(reasons: Mapping[str, str], *, out: Path, split: str = "") -> DitrError:
    """That no frame, of a split if one is named, could be made: of each frame why."""
    examples = "".join(f"\n  {frame}: {why}" for frame, why in list(reasons.items())[:_SHOWN])
    more = f"\n  and {len(reasons) - _SHOWN} more, in {PREPARED}" if len(reasons) > _SHOWN else ""
    of = f" of {split}" if split else ""
    what = f"none of {len(reasons)} frames{of} could be made{':' if reasons else ''}{examples}{more}"
    return DitrError(what, code=Code.DATASET, where=str(out), fix="put the capture's files in place and call again")


def _run(tasks: Sequence[SceneTask], workers: int) -> Iterator[list[FrameOutcome]]:
    """The scenes' outcomes as they come."""
    if workers <= 1 or len(tasks) <= 1:
        with threadpool_limits(1):
            yield from map(make_scene, tasks)
        return
    # Forking a process that runs threads (a progress display, BLAS) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_start_worker) as pool:
        yield from _results(pool, tasks)


def _results(pool: Executor, tasks: Sequence[SceneTask]) -> Iterator[list[FrameOutcome]]:
    with born_deaf(signal.SIGINT):
        futures = [pool.submit(make_scene, task) for task in tasks]
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
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end_with_parent()
    threadpool_limits(1)
