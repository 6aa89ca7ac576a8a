"""Ground truth of points and superpoints from raw annotation ids (docs/reference/esam.md, Pipeline 3; 4; 8)."""

from __future__ import annotations

import numpy as np
import torch

from ditr.data.batch import Targets
from ditr.data.class_table import SCANNET200, ClassTable
from ditr.data.classes import IGNORED, NUM_CLASSES


def make_targets(
    instance_ids: np.ndarray | None,
    semantic_ids: np.ndarray | None,
    superpoints: np.ndarray,
    *,
    table: ClassTable = SCANNET200,
    esam_compat: bool = False,
) -> Targets:
    """Targets of N points, from (N,) int64 ids as they lie on disk and (N,) superpoints 0..S-1.

    Things are the annotated instances on points of the table's things, numbered by ascending id, whether or not the
    frame has any background. A superpoint belongs to an instance or class that has more than half of its points, so at
    most to one of each. A frame without labels has no thing, and all of its points are void. Without classes every
    annotated instance is a thing of no class.

    With ``esam_compat`` a frame without any background point loses the instance with the smallest id, as in ESAM, which
    takes the smallest number of a frame to be the background's: its points become void and its mask and label go, the
    classes of its points stay. The background are then the points of no thing's class: id 0 is an id like all others,
    which matters only where unannotated points have a class.
    """
    if instance_ids is None:
        instance_ids = np.zeros(len(superpoints), dtype=np.int64)
    things, classes = _of_points(instance_ids, semantic_ids, table)
    thing = things >= 0
    if not esam_compat:
        thing &= instance_ids != 0
    elif thing.all():
        thing = instance_ids != instance_ids.min()
    ids, numbers = _numbered(instance_ids[thing])
    instance_of_point = np.full(len(instance_ids), -1, dtype=np.int64)
    instance_of_point[thing] = numbers
    sizes = np.bincount(superpoints)  # (S,)
    owners = _majority(instance_of_point[thing], superpoints[thing], sizes=sizes, values=len(ids), none=-1)
    majorities = _majority(classes, superpoints, sizes=sizes, values=NUM_CLASSES + 1, none=IGNORED)
    return Targets(
        instance_of_point=torch.from_numpy(instance_of_point),
        instance_of_superpoint=torch.from_numpy(owners),
        class_of_superpoint=torch.from_numpy(majorities),
        labels=torch.from_numpy(_labels(numbers, things[thing], instances=len(ids), values=len(table.things) + 1)),
        ids=torch.from_numpy(ids),
    )


def _of_points(
    instance_ids: np.ndarray, semantic_ids: np.ndarray | None, table: ClassTable
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 thing class, -1 where there is none, and (N,) class of ScanNet200."""
    if semantic_ids is not None:
        return table.thing_of_id[semantic_ids], table.class_of_id[semantic_ids]
    return np.where(instance_ids > 0, len(table.things), -1), np.full(len(instance_ids), IGNORED)


def _numbered(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ids, ascending, and the number of each of ``ids`` among them; by a table where that is short."""
    if ids.max(initial=-1) >= len(ids):
        return np.unique(ids, return_inverse=True)
    present = np.bincount(ids) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[ids]


def _majority(
    of_point: np.ndarray, superpoints: np.ndarray, *, sizes: np.ndarray, values: int, none: int
) -> np.ndarray:
    """(S,) int64 value, 0..values-1, that more than half of the superpoint's points have; ``none`` if there is none."""
    value, superpoint = np.nonzero(2 * _count(of_point, superpoints, rows=values, columns=len(sizes)) > sizes)
    found = np.full(len(sizes), none, dtype=np.int64)
    found[superpoint] = value
    return found


def _labels(numbers: np.ndarray, things: np.ndarray, *, instances: int, values: int) -> np.ndarray:
    """(G,) int64: the most frequent thing class of each instance's points, the lowest of equals."""
    votes = _count(numbers, things, rows=instances, columns=values)
    return np.asarray(votes.argmax(axis=1), dtype=np.int64)


def _count(row: np.ndarray, column: np.ndarray, *, rows: int, columns: int) -> np.ndarray:
    counts: np.ndarray = np.bincount(row * columns + column, minlength=rows * columns)
    return counts.reshape(rows, columns)
