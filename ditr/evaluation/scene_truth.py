"""The ground truth of a sequence: of every voxel that its frames saw, the instance that most of its points are of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ditr.evaluation.voxels import voxel_keys

MIN_VOXELS = 12
"""Smaller ground truth is ignored, smaller predictions are dropped: about what 100 of a frame's 20,000 points cover at
2.5 m, which is the limit of single frames."""


@dataclass(frozen=True, kw_only=True)
class SceneTruth:
    """P pairs of a voxel and an instance that points in it are of, in this order."""

    keys: np.ndarray
    """(P,) int64, see ``voxel_keys``."""
    ids: np.ndarray
    """(P,) int64, the same in all frames of the scene; -1 = of none."""
    points: np.ndarray
    """(P,) int64 how many points these are."""

    def of_voxels(self, keys: np.ndarray) -> np.ndarray:
        """(V,) of voxels (V,), ascending and all seen: 0..G-1 by ascending id, -1 = void; of equals the lower."""
        place = np.searchsorted(keys, self.keys)
        few_first = np.lexsort((-self.ids, self.points))
        winner = np.full(len(keys), -1)
        winner[place[few_first]] = self.ids[few_first]
        ids = np.unique(winner[winner >= 0])
        return np.where(winner >= 0, np.searchsorted(ids, winner), -1)


def empty_truth() -> SceneTruth:
    """Of no frame."""
    none = np.zeros(0, dtype=np.int64)
    return SceneTruth(keys=none, ids=none, points=none)


def add_truth(truth: SceneTruth, *, xyz: np.ndarray, ids: np.ndarray) -> SceneTruth:
    """With one more frame, of points (N, 3) in metres of the world, and their instances' ids (N,), -1 = of none."""
    keys = np.append(truth.keys, voxel_keys(xyz))
    ids = np.append(truth.ids, ids)
    points = np.append(truth.points, np.ones(len(xyz), dtype=np.int64))
    order = np.lexsort((ids, keys))
    keys, ids, points = keys[order], ids[order], points[order]
    first = np.flatnonzero((np.diff(keys, prepend=-1) != 0) | (np.diff(ids, prepend=-2) != 0))
    return SceneTruth(keys=keys[first], ids=ids[first], points=np.add.reduceat(points, first))
