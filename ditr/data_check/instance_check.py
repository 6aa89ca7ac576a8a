"""Splits without a single instance that a run could use, and what made them so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ditr.data.dataset import Dataset, Report
from ditr.data.frame_view import spread_evenly
from ditr.data.scannet_sv import INSTANCES, SEMANTICS, FrameSet, Split
from ditr.data_check.frame_check import FrameFindings
from ditr.data_check.label_statistics import INSTANCES_A_FRAME, MIN_INSTANCE_POINTS, SCOREABLE, TRAINABLE

NOTHING_TO_TRAIN_ON, NOTHING_TO_SCORE = "no instance to train on", "no instance to score"
"""Kinds of a split without a single one, of which a training or an evaluation would be void."""
_LOOKED_AT = 16
"""Frames of a split, whose ids are read again."""
_SHOWN = 5


def check_instances(
    dataset: Dataset, usable: Mapping[Split, Sequence[FrameFindings]], report: Report
) -> dict[str, float]:
    """Tells ``report`` of a split in which no labelled frame has an instance, with the cause and what mends it.

    Returns how many frames of each split lack one, by name.

    Parameters
    ----------
    usable: of the splits that there are, the frames that are not broken; a split without them is told elsewhere.
    """
    statistics: dict[str, float] = {}
    looked_for: tuple[tuple[Split, str, str, str], ...] = (
        ("train", NOTHING_TO_TRAIN_ON, TRAINABLE, ""),
        ("val", NOTHING_TO_SCORE, SCOREABLE, f" of {MIN_INSTANCE_POINTS} points or more"),
    )
    for split, kind, value, size in looked_for:
        frames = [frame for frame in usable.get(split, ()) if INSTANCES_A_FRAME in frame.values]
        if not frames:
            continue
        empty = sum(not frame.values[value] for frame in frames)
        statistics[f"{split} frames with {kind}"] = float(empty)
        if empty == len(frames):
            annotated = int(sum(frame.values[INSTANCES_A_FRAME] for frame in frames))
            what = f"no frame of {split}, of {empty}, has an instance{size} of one of the classes of things"
            why = _cause(dataset.splits[split], frames) if annotated else _NONE
            report(kind, f"{dataset.root}: {what}; annotated instances: {annotated}, whatever their class. {why}")
    return statistics


_NONE = f"Cause: every id in {INSTANCES} is 0. Fix: number each object of a frame there from 1 up, at all of its points"
_NO_CLASS = (
    f"Cause: every id in {SEMANTICS} is 0 where there is an instance. Fix: write class ids there; or, for instances of "
    "no class, leave pts_semantic_mask_path out of the info pickles"
)


def _cause(frames: FrameSet, found: Sequence[FrameFindings]) -> str:
    """Of frames that have instances, none of which a run can use: sentences with the cause and the fix."""
    chosen = spread_evenly(_LOOKED_AT, total=len(found))
    ids = set().union(*(_annotated(frames, frames.ids.index(found[index].id)) for index in chosen))
    if ids == {0}:
        return _NO_CLASS
    classes = frames.classes
    if not ids or any(classes.thing_of_id[id_] >= 0 for id_ in ids):
        return f"Cause: all are of fewer than {MIN_INSTANCE_POINTS} points. Fix: evaluate on frames of larger ones"
    nameless = sorted(ids - set(classes.names) - {0})
    if not nameless:
        names = ", ".join(classes.names[id_] for id_ in sorted(ids - {0}))
        return f"Cause: all are stuff ({names}). Fix: take what shall be found out of stuff in the registry's entry"
    shown = ", ".join(map(str, nameless[:_SHOWN])) + ", ..." * (len(nameless) > _SHOWN)
    return (
        f"Cause: ids in {SEMANTICS} that no class has: {shown}. Fix: name them in the registry's entry, "
        f"classes: {{{nameless[0]}: NAME}}; those without that key are ScanNet's raw ids"
    )


def _annotated(frames: FrameSet, index: int) -> set[int]:
    """Class ids where the frame has instances; none of a frame without classes."""
    instances, semantics = frames.instance_ids(index), frames.semantic_ids(index)
    if instances is None or semantics is None:
        return set()
    return set(np.unique(semantics[instances > 0]).tolist())
