"""Ground truth of points and superpoints from raw annotation ids (docs/reference/esam.md, Pipeline 3; 4; 8)."""

from __future__ import annotations

import numpy as np
import torch

from ditr.data.batch import Targets
from ditr.data.classes import IGNORED, MAPPING, NUM_CLASSES, NUM_STUFF, swap_chair_and_floor


def make_targets(
    instance_ids: np.ndarray, semantic_ids: np.ndarray, superpoints: np.ndarray, *, esam_compat: bool = False
) -> Targets:
    """Targets of N points, from (N,) int64 ids as they lie on disk and (N,) superpoints 0..S-1.

    Things are the annotated instances on points of classes 2..199, numbered by ascending id, whether or not the frame
    has any background. A superpoint belongs to an instance or class that has more than half of its points, so at most
    to one of each.

    With ``esam_compat`` a frame without any background point loses the instance with the smallest id, as in ESAM, which
    takes the smallest number of a frame to be the background's: its points become void and its mask and label go, the
    classes of its points stay. The background are then the points of no thing's class: id 0 is an id like all others,
    which matters only where unannotated points have a class.
    """
    classes = MAPPING[swap_chair_and_floor(semantic_ids)]
    thing = (classes >= NUM_STUFF) & (classes != IGNORED)
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
        labels=torch.from_numpy(_labels(numbers, classes[thing], things=len(ids))),
        ids=torch.from_numpy(ids),
    )


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


def _labels(numbers: np.ndarray, classes: np.ndarray, *, things: int) -> np.ndarray:
    """(G,) int64 thing class 0..197: the most frequent class of each instance's points, the lowest of equals."""
    votes = _count(numbers, classes - NUM_STUFF, rows=things, columns=NUM_CLASSES - NUM_STUFF)
    return np.asarray(votes.argmax(axis=1), dtype=np.int64)


def _count(row: np.ndarray, column: np.ndarray, *, rows: int, columns: int) -> np.ndarray:
    counts: np.ndarray = np.bincount(row * columns + column, minlength=rows * columns)
    return counts.reshape(rows, columns)
