"""Keeps frames that cannot be used out of runs: refuses the data set, or leaves them out and says which."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import xxhash
from pydantic import TypeAdapter

from ditr import paths
from ditr.data.dataset import Dataset, open_dataset
from ditr.data.prepared import PREPARED
from ditr.data.scannet_sv import FrameSet
from ditr.data_check.check import CheckReport, DataProblem, check_dataset
from ditr.data_check.frame_check import MAX_COLOUR_DIFFERENCE
from ditr.data_check.frame_list import FRAME_LISTS
from ditr.data_check.reprojection import EDGES_PX, LIMIT_PX, MAX_SCALE_ERROR, MIN_COLUMNS, MIN_CONCENTRATION
from ditr.data_check.reprojection_summary import histogram
from ditr.data_check.split_check import NEIGHBOURS
from ditr.errors import Code, DitrError
from ditr.files import write_text
from ditr.geometry.pose import MAX_ROTATION_ERROR
from ditr.progress import Progress, silent
from ditr.rooms import make_missing
from ditr.spec.models import DatasetSpec
from ditr.spec.registry import Registry

CHECK_VERSION = 6
"""Raised when the check finds other things in the same files: kept reports are then made anew."""
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class ScreenedDataset:
    """What a run reads."""

    dataset: Dataset
    """Without the frames that were left out; the digest stays that of the whole."""
    excluded: tuple[str, ...]
    """Their ids, sorted."""


@dataclass(frozen=True, kw_only=True)
class _KeptReport:
    """A report, and the stamp of what it is of."""

    of: dict[str, str]
    report: CheckReport


_KEPT = TypeAdapter(_KeptReport)


def open_screened(spec: DatasetSpec, *, registry: Registry, progress: Progress = silent) -> ScreenedDataset:
    """The data set as runs read it, made if it is embedded; raises what ``open_dataset`` and ``screen`` raise."""
    make_missing(spec.name, registry=registry, progress=progress)
    whole = open_dataset(spec.name, registry=registry)
    return screen(whole, policy=spec.broken_frames, progress=progress)


def screen(dataset: Dataset, *, policy: Literal["refuse", "exclude"], progress: Progress = silent) -> ScreenedDataset:
    """The data set without broken frames, by a check of every file that is made once and kept; what is read of it
    is held against what was checked.

    Raises
    ------
    DitrError: frames are broken and ``policy`` is refuse; points are not the pixels that the camera declares; the
        splits share scenes; an embedded set is not what was made; no frame is left in a split, or no instance to train
        on or to score.
    """
    report = kept_report(dataset) or check_and_keep(dataset, progress=progress)
    _require_sound(dataset, report)
    if report.broken and policy == "refuse":
        raise _broken_frames(dataset, report)
    splits = {
        split: frames.without(report.broken).with_contents(report.contents) for split, frames in dataset.splits.items()
    }
    for split, frames in splits.items():
        if not len(frames):
            fix = f"`ditr data check {dataset.name}` says what is wrong with each."
            raise DitrError(f"every frame of {split} is broken", code=Code.DATASET, where=str(dataset.root), fix=fix)
    return ScreenedDataset(dataset=replace(dataset, splits=splits), excluded=tuple(sorted(report.broken)))


def kept_report(dataset: Dataset) -> CheckReport | None:
    """The report of an earlier check by the same rules of files that did not change since; else None, as where it
    cannot be read any more."""
    kept = _kept(dataset)
    return kept.report if kept is not None and kept.of == _stamp(dataset) else None


def check_and_keep(
    dataset: Dataset, *, progress: Progress = silent, opening: Sequence[tuple[str, str]] = ()
) -> CheckReport:
    """Checks every file, also against what an earlier check read, and keeps the report for the runs to come.

    Parameters
    ----------
    opening: kind and text of what ``open_dataset`` reported; with any, no run gets as far as asking for the report.
    """
    kept = _kept(dataset)
    before = None if kept is None else kept.report.contents
    workers = len(os.sched_getaffinity(0))
    report = check_dataset(dataset, workers=workers, progress=progress, opening=opening, before=before)
    if not opening:
        path = _report_path(dataset)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(_KeptReport(of=_stamp(dataset), report=report))))
    return report


def frames_apart(name: str, *, registry: Registry) -> tuple[str, ...]:
    """What the kept report of a data set says of scenes whose frames do not agree in their world; empty where they do.

    Runs on single frames do without that agreement, a merged scene does not.
    """
    report = kept_report(open_dataset(name, registry=registry))
    problems = () if report is None else report.problems
    return tuple(example for problem in problems if problem.kind == NEIGHBOURS for example in problem.examples)


def _kept(dataset: Dataset) -> _KeptReport | None:
    """Of the last check of this folder; None where it cannot be read any more."""
    try:
        return _KEPT.validate_json(_report_path(dataset).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _report_path(dataset: Dataset) -> Path:
    of = xxhash.xxh3_64_hexdigest(f"{dataset.name}\0{dataset.root}".encode(errors="surrogateescape"))
    return paths.cache_dir() / "checks" / f"{of}.json"


def _stamp(dataset: Dataset) -> dict[str, str]:
    """The rules of the check and what it was of.

    The digest covers the beginnings of files only, so size and time of every file that a run reads are in here too.
    """
    files = xxhash.xxh3_128()
    for name in (*FRAME_LISTS.values(), PREPARED):
        path = dataset.root / name
        files.update(path.read_bytes() if path.is_file() else b"missing\0")
    for frames in dataset.splits.values():
        _add_files(files, frames)
    rules = [CHECK_VERSION, MAX_COLOUR_DIFFERENCE, MAX_ROTATION_ERROR, LIMIT_PX, MIN_CONCENTRATION]
    rules += [MAX_SCALE_ERROR, MIN_COLUMNS, *EDGES_PX]
    return {"rules": repr(rules), "digest": dataset.digest, "files": files.hexdigest()}


def _add_files(files: xxhash.xxh3_128, frames: FrameSet) -> None:
    for index, info in enumerate(frames.infos.frames):
        files.update(f"{info.id} {frames.intrinsics_of(index)}".encode())
        files.update(info.pose_c2w.tobytes())
        for path in (
            frames.root / info.image,
            *frames.paths(index).values(),
        ):
            try:
                status = path.stat()
                files.update(f"{status.st_size} {status.st_mtime_ns}\0".encode())
            except OSError:
                files.update(b"missing\0")


def _require_sound(dataset: Dataset, report: CheckReport) -> None:
    """What no choice of frames repairs."""
    reprojection = report.reprojection
    if reprojection.refused:
        lines = (*histogram(reprojection), *_some(reprojection.refused, reprojection.examples))
        raise DitrError(
            f"in {reprojection.refused} of {reprojection.frames} frames points are not within {LIMIT_PX} px of the "
            "pixels that intrinsics and pose say, so that 2D features would be read at wrong places\n"
            + "\n".join(f"  {line}" for line in lines),
            code=Code.DATASET,
            where=str(dataset.root),
            fix=f"Correct the intrinsics or the poses, or take single frames out of the info pickles; "
            f"`ditr data check {dataset.name}` lists what is wrong.",
        )
    for problem in report.problems:
        if problem.effect == "refused":
            raise DitrError(
                f"{problem.kind}: {problem.count}\n" + "\n".join(f"  {line}" for line in _lines(problem)),
                code=Code.DATASET,
                where=str(dataset.root),
                fix=f"`ditr data check {dataset.name}` lists what is wrong and what mends it.",
            )


def _broken_frames(dataset: Dataset, report: CheckReport) -> DitrError:
    frames_of = Counter(kind for kinds in report.broken.values() for kind in kinds)
    of = {problem.kind: problem for problem in report.problems}
    lines = [f"{len(report.broken)} of {report.named} frames cannot be used"]
    for kind, count in frames_of.most_common():
        lines.append(f"  {kind}: {_frames(count)}")
        lines += [f"    {line}" for line in _some(of[kind].count, of[kind].examples)]
    return DitrError(
        "\n".join(lines),
        code=Code.DATASET,
        where=str(dataset.root),
        fix=(
            f"`ditr data check {dataset.name}` lists what is wrong; restore the files, or leave the frames out and "
            "have them counted in the results with `dataset.broken_frames: exclude`."
        ),
    )


def _lines(problem: DataProblem) -> list[str]:
    return _some(problem.count, problem.examples)


def _some(count: int, examples: tuple[str, ...]) -> list[str]:
    more = [f"and {count - _SHOWN} more"] if count > _SHOWN else []
    return [*examples[:_SHOWN], *more]


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"
