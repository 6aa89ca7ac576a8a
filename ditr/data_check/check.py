"""Reads every file of a data set and says everything that is wrong with it, and what is in it."""

from __future__ import annotations

import multiprocessing
import signal
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ditr.data.dataset import SPLITS, Dataset
from ditr.data.frame_files import Contents, FileFacts
from ditr.data.scannet_sv import FrameSet
from ditr.data_check.frame_check import HARMLESS as HARMLESS_IN_A_FRAME
from ditr.data_check.frame_check import FrameFindings, check_frame
from ditr.data_check.instance_check import NOTHING_TO_SCORE, NOTHING_TO_TRAIN_ON, check_instances
from ditr.data_check.label_statistics import UNANNOTATED
from ditr.data_check.reprojection_summary import Reprojection, summarise
from ditr.data_check.split_check import (
    ABSENT,
    CONVENTION,
    DEPTH_SCALE,
    NEIGHBOURS,
    check_geometry,
    check_splits,
)
from ditr.progress import Progress, silent
from ditr.workers import born_deaf, end_with_parent

REFUSED = frozenset(
    {
        "scene in both splits",
        "frame in both splits",
        "info pickle",
        "digest",
        NOTHING_TO_TRAIN_ON,
        NOTHING_TO_SCORE,
        CONVENTION,
        DEPTH_SCALE,
    }
)
"""Kinds that leaving out broken frames does not mend: scores on rooms that were trained on, data that is not what its
digest says, splits without a single instance, and rooms that lie on their side or are of another size."""
HARMLESS = frozenset({*HARMLESS_IN_A_FRAME, "frame list", NEIGHBOURS})
"""Kinds that take nothing from the frames that are there."""
DAMAGED = "damaged content"
"""Kind of a file that holds other bytes than at the last check, though nobody wrote it."""
_EXAMPLES = 10
_FRAMES_A_WORKER = 100
"""Fewer are checked sooner than a process starts."""
_FRAMES_A_TASK = 8


@dataclass(frozen=True, kw_only=True)
class DataProblem:
    """One kind of problem: how often, and the first ten places with what is wrong there."""

    kind: str
    count: int
    examples: tuple[str, ...]

    @property
    def effect(self) -> Literal["frame", "refused", "harmless"]:
        """On a run: it cannot use the frame, does not start, or does without."""
        if self.kind in REFUSED:
            return "refused"
        return "harmless" if self.kind in HARMLESS else "frame"


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What ``ditr data check`` prints and a run decides by."""

    problems: tuple[DataProblem, ...]
    """Sorted by kind."""
    statistics: dict[str, float]
    """Name -> value; means are over frames."""
    broken: dict[str, tuple[str, ...]]
    """Frame id -> kinds of its problems, of frames that a run cannot use or that it lacks."""
    reprojection: Reprojection
    unannotated: dict[str, float]
    """Frame id -> share of its points without an instance, of labelled frames."""
    contents: dict[str, dict[str, FileFacts]]
    """Of every frame that files were found of, as they are, or were before they were damaged."""

    @property
    def named(self) -> int:
        """Frames that the info pickles or the frame lists name."""
        absent = sum(ABSENT in kinds for kinds in self.broken.values())
        return int(sum(self.statistics.get(f"{split} frames", 0.0) for split in SPLITS)) + absent

    @property
    def sound(self) -> bool:
        """Nothing is wrong."""
        return not self.problems and not self.reprojection.refused


def check_dataset(
    dataset: Dataset,
    *,
    workers: int = 1,
    progress: Progress = silent,
    opening: Iterable[tuple[str, str]] = (),
    before: Contents | None = None,
) -> CheckReport:
    """Checks files, counts, id ranges, poses, images and the agreement of points with pixels, on several processes.

    Parameters
    ----------
    opening: kind and text of what ``open_dataset`` reported.
    before: what an earlier check found of the files. A file with the size and time that it had, and other bytes, was
        written by nobody: it is damaged.
    """
    found = _Found(before=before or {})
    for kind, text in opening:
        found.add(kind, text)
    checked = []
    total = len(dataset)
    progress("frames", 0, total)
    for findings in _findings(dataset, workers):
        checked.append(findings)
        found.take(findings)
        progress("frames", len(checked), total)
    of_frame = {findings.id: findings for findings in checked}
    usable = {
        split: [of_frame[frame_id] for frame_id in frames.ids if frame_id not in found.broken]
        for split, frames in dataset.splits.items()
    }
    statistics, absent = check_splits(dataset, found.add)
    statistics |= check_instances(dataset, usable, found.add)
    statistics |= check_geometry(dataset, usable, found.add)
    held = set(dataset.ids)  # a frame that the list of the other split names is there
    found.broken.update(dict.fromkeys((frame for frame in absent if frame not in held), (ABSENT,)))
    return CheckReport(
        problems=found.problems(),
        statistics=statistics | found.statistics(),
        broken=found.broken,
        unannotated={f.id: f.values[UNANNOTATED] for f in checked if UNANNOTATED in f.values},
        contents=found.contents,
        reprojection=summarise((f.id, f.reprojection, f.camera) for f in checked if f.reprojection is not None),
    )


@dataclass
class _Found:
    """Problems by kind and values by name, as they come in."""

    before: Contents
    where: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    broken: dict[str, tuple[str, ...]] = field(default_factory=dict)
    contents: dict[str, dict[str, FileFacts]] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        self.where[kind].append(text)

    def take(self, findings: FrameFindings) -> None:
        """Adds one frame."""
        damaged = [kind for kind, facts in findings.files.items() if self._is_damaged(findings.id, kind, facts)]
        problems = [*findings.problems, *((DAMAGED, _of_damage(findings.id, kind)) for kind in damaged)]
        was = {kind: self.before[findings.id][kind] for kind in damaged}
        self.contents[findings.id] = findings.files | was
        for kind, text in problems:
            self.add(kind, text)
        for name, value in findings.values.items():
            self.values[name].append(value)
        if breaking := tuple(sorted({kind for kind, _ in problems} - HARMLESS)):
            self.broken[findings.id] = breaking

    def _is_damaged(self, frame_id: str, kind: str, facts: FileFacts) -> bool:
        was = self.before.get(frame_id, {}).get(kind)
        as_before = was is not None and (was.size_bytes, was.mtime_ns) == (facts.size_bytes, facts.mtime_ns)
        return was is not None and as_before and was.digest != facts.digest

    def problems(self) -> tuple[DataProblem, ...]:
        return tuple(
            DataProblem(kind=kind, count=len(texts), examples=tuple(texts[:_EXAMPLES]))
            for kind, texts in sorted(self.where.items())
        )

    def statistics(self) -> dict[str, float]:
        """The mean of every value, the maximum of those called so, and shares."""
        return {
            name: float(np.max(values) if name.endswith("max") else np.mean(values))
            for name, values in self.values.items()
        }


def _of_damage(frame_id: str, kind: str) -> str:
    what = "has other bytes than at the last check, and the same size and time: it is damaged, restore it"
    own = "or touch it if that is how you made it"
    return f"{frame_id}: its file of {kind} {what}, {own}"


def _findings(dataset: Dataset, workers: int) -> Iterator[FrameFindings]:
    """Of every frame, train before val, in the order of the info pickles."""
    splits = tuple(dataset.splits.values())
    tasks = [(split, index) for split, frames in enumerate(splits) for index in range(len(frames))]
    workers = min(workers, len(tasks) // _FRAMES_A_WORKER)
    if workers <= 1:
        yield from (check_frame(splits[split], index) for split, index in tasks)
        return
    # A fresh interpreter each: forking a process that runs threads can hang, and the process that forks loader workers
    # has other modules to hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(splits,)) as pool:
        with born_deaf(signal.SIGINT):
            checked = pool.map(_check_task, tasks, chunksize=_FRAMES_A_TASK)
        yield from checked


_worker_splits: list[FrameSet] = []
"""In a worker process: the data set, which comes once and not with every frame."""


def _start_worker(splits: Iterable[FrameSet]) -> None:
    end_with_parent()
    _worker_splits[:] = splits


def _check_task(task: tuple[int, int]) -> FrameFindings:
    split, index = task
    return check_frame(_worker_splits[split], index)
