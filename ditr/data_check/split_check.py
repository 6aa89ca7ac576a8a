"""What only a look at whole splits shows: shared scenes, frames that only a list names, frames that do not agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ditr.data.dataset import Dataset, Report
from ditr.data.manifest import Manifest, read_manifest
from ditr.data.prepared import skipped_frames
from ditr.data.scannet_sv import MANIFEST, POINTS, FrameSet, Split
from ditr.data_check.frame_check import DEPTH, FrameFindings
from ditr.data_check.frame_list import FRAME_LISTS, read_frame_list
from ditr.data_check.label_statistics import MIN_INSTANCE_POINTS
from ditr.data_check.neighbours import compare_neighbours
from ditr.errors import DitrError
from ditr.rooms import content_digest

ABSENT = "listed, not in the info pickle"
"""Kind of the frames that a split should have and has not: a score without them is not one of the split."""
CONVENTION, DEPTH_SCALE, NEIGHBOURS = "pose or depth convention", "depth scale", "neighbouring frames"
"""Kinds of what is wrong with the geometry of all frames alike; and of frames that do not agree, nobody knows why."""
LEAST_DEPTH_M, MOST_DEPTH_M = 0.15, 30.0
"""What the median point of a room is between."""


def check_splits(dataset: Dataset, report: Report) -> tuple[dict[str, float], tuple[str, ...]]:
    """Tells ``report`` what is wrong; returns statistics, name -> value, and the ids of the ``ABSENT`` frames."""
    statistics: dict[str, float] = {}
    absent: list[str] = []
    for split, frames in dataset.splits.items():
        statistics[f"{split} frames"] = float(len(frames))
        of_list, missing = _check_list(split, frames, report)
        statistics |= of_list
        absent += missing
        statistics |= {f"{split} frames without labels": float(len(bare))} if (bare := frames.unlabelled()) else {}
    scenes = [{info.scene for info in frames.infos.frames} for frames in dataset.splits.values()]
    for scene in sorted(set.intersection(*scenes) if len(scenes) > 1 else ()):
        report("scene in both splits", f"{dataset.root}: {scene} is in train and val")
    if manifest := read_manifest(dataset.root):
        statistics |= _check_manifest(dataset, manifest, report)
    return statistics, tuple(absent)


def check_geometry(
    dataset: Dataset, usable: Mapping[Split, Sequence[FrameFindings]], report: Report
) -> dict[str, float]:
    """Tells ``report`` of depth that no room has, and of frames that do not agree in their scene's world.

    Returns of each split the share of points that agree, of those that can be compared, name -> value.
    """
    statistics: dict[str, float] = {}
    depths = [frame.values[DEPTH] for frames in usable.values() for frame in frames if DEPTH in frame.values]
    if depths and not LEAST_DEPTH_M < (depth := float(np.median(depths))) < MOST_DEPTH_M:
        what = f"half of all points are within {depth:.3g} m of their camera, which is too"
        report(DEPTH_SCALE, f"{dataset.root}: {what} {'far' if depth > MOST_DEPTH_M else 'near'} for a room")
    for split, frames in dataset.splits.items():
        found = compare_neighbours(frames.without(set(frames.ids) - {finding.id for finding in usable[split]}))
        if found is None:
            continue
        share, pairs = found.stored.share, found.stored.pairs
        statistics[f"{split} points that a neighbouring frame sees at the same place, share"] = share
        seen = f"of what both frames of {pairs} pair{'s' * (pairs > 1)} see, {share:.0%} is at one place"
        agree = f"{dataset.root}: {split}: {seen}"
        if found.mistake is not None and found.corrected is not None:
            report(
                CONVENTION,
                f"{agree}, and {found.corrected.share:.0%} would be: {found.mistake.cause}. Fix: {found.mistake.fix}",
            )
        elif found.disagree:
            report(NEIGHBOURS, f"{agree} only: camera, depth or poses are off, by no usual mistake")
    return statistics


def _check_list(split: Split, frames: FrameSet, report: Report) -> tuple[dict[str, float], list[str]]:
    """Of a folder that has ESAM's list of the split; an info pickle may hold other frames, such as those of scans."""
    path = frames.root / FRAME_LISTS[split]
    if not path.is_file():
        return {}, []
    try:
        listed = read_frame_list(path)
    except DitrError as error:
        report("frame list", f"{error.where}: {error.what}")
        return {}, []
    held = set(frames.ids)
    skipped = {frame for frame in skipped_frames(frames.root) if frame not in held}
    absent = [frame for frame in listed if frame not in held | skipped]
    for frame in absent:
        there = (frames.root / POINTS / f"{frame}.bin").is_file()
        report(ABSENT, f"{frame}: its points are {'' if there else 'not '}on disk")
    statistics = {f"{split} frames that are not in its frame list": float(len(held - set(listed)))}
    if left_out := skipped & set(listed):  # without a pose or depth there is nothing to train on or to score
        statistics[f"{split} frames that were left out when prepared"] = float(len(left_out))
    return statistics, absent


def _check_manifest(dataset: Dataset, manifest: Manifest, report: Report) -> dict[str, float]:
    """Digest, and what only the maker of an embedded set knows."""
    if content_digest(dataset.root) != manifest.digest:
        path = dataset.root / MANIFEST
        report("digest", f"{path}: the files are not those that were made; delete the folder to make them again")
        return {}
    statistics = {}
    for name, frames in dataset.splits.items():
        textured, large = 0, 0
        for frame_id in frames.ids:
            frame = manifest.frames[frame_id]
            textured += len(frame.texture_ids)
            large += sum(
                thing.points >= MIN_INSTANCE_POINTS and thing.name not in ("wall", "floor")
                for thing in frame.instances.values()
            )
        statistics[f"texture-only share of {name} instances"] = textured / max(large, 1)
    return statistics
