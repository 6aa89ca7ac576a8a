"""What the labels of one frame hold."""

from __future__ import annotations

import numpy as np

from ditr.data.class_table import SCANNET200, ClassTable

MIN_INSTANCE_POINTS = 100
"""Smaller instances are not evaluated (docs/reference/esam.md, Evaluation)."""
MOSTLY = 0.9
"""Of a frame's points: annotated rooms leave out a tenth."""
UNANNOTATED = "unannotated share of points"
INSTANCES_A_FRAME = "instances a frame"
"""All that are annotated."""
TRAINABLE = "instances to train on a frame"
"""Those with points of one of the classes of things: all others are void to a run. Without classes all of them."""
SCOREABLE = "instances to score a frame"
"""Those with enough such points."""


def label_statistics(
    *,
    superpoints: np.ndarray | None,
    instances: np.ndarray | None,
    semantics: np.ndarray | None,
    classes: ClassTable | None = SCANNET200,
) -> dict[str, float]:
    """Name -> value of (N,) ids of the points; what needs a file that cannot be read, None, is left out.

    ``classes`` is None of a frame without classes.
    """
    values: dict[str, float] = {}
    if superpoints is not None:
        values["superpoints a frame"] = float(superpoints.max() + 1)
    if instances is None:
        return values
    ids, instances, sizes = np.unique(instances, return_inverse=True, return_counts=True)
    sizes = sizes[ids > 0]
    large = np.sum(sizes >= MIN_INSTANCE_POINTS)
    values[INSTANCES_A_FRAME] = float(len(sizes))
    values[f"instances a frame of {MIN_INSTANCE_POINTS} points or more"] = float(large)
    unannotated = float(1 - sizes.sum() / len(instances))
    values[UNANNOTATED] = unannotated
    values[f"{UNANNOTATED} of a frame, max"] = unannotated
    values[f"share of frames with {MOSTLY:.0%} of points unannotated"] = float(unannotated >= MOSTLY)
    if superpoints is not None and len(superpoints) == len(instances):
        values["superpoint purity"] = _purity(superpoints, instances)
    points = sizes
    if classes is not None:
        if semantics is None or len(semantics) != len(instances):
            return values
        base = int(semantics.max()) + 1
        pairs = np.unique(instances * base + semantics) // base
        several = np.bincount(pairs)[ids > 0] > 1
        values["instances of several semantic classes a frame"] = float(several.sum())
        points = np.bincount(instances[classes.thing_of_id[semantics] >= 0], minlength=len(ids))[ids > 0]
    values[TRAINABLE] = float(np.sum(points > 0))
    values[SCOREABLE] = float(np.sum(points >= MIN_INSTANCE_POINTS))
    return values


def _purity(superpoints: np.ndarray, instances: np.ndarray) -> float:
    """Share of points that are of their superpoint's most frequent instance; instances are 0, 1, ..."""
    base = int(instances.max()) + 1
    pairs, counts = np.unique(superpoints * base + instances, return_counts=True)
    largest = np.zeros(int(superpoints.max()) + 1)
    np.maximum.at(largest, pairs // base, counts)
    return float(largest.sum() / len(superpoints))
