"""Voxels of the world as whole numbers, and how much two sets of instances on them overlap."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

VOXEL_M = 0.05
WORLD_M = 50_000.0
"""How far from the world's origin points can lie."""
_REACH = 1 << 20
"""The same in voxels, and a little more."""


def voxel_keys(xyz: np.ndarray) -> np.ndarray:
    """(N,) int64 of points (N, 3) in metres of the world: 21 bits of each of x, y, z in voxels, x first."""
    x, y, z = np.floor(np.asarray(xyz, dtype=np.float64) / VOXEL_M).astype(np.int64).T + _REACH
    return np.asarray((x << 42) | (y << 21) | z)


def voxel_corners(keys: np.ndarray) -> np.ndarray:
    """(V, 3) int64 lower corner of each voxel, in voxels."""
    return np.stack([keys >> 42, keys >> 21 & 2 * _REACH - 1, keys & 2 * _REACH - 1], axis=1) - _REACH


def voxel_ious(first: csr_matrix, second: csr_matrix) -> np.ndarray:
    """(M, K) of instances (M, V) and (K, V) bool: shared voxels by those of either; 0 without any."""
    shared = (first.astype(np.int64) @ second.astype(np.int64).T).toarray()
    either = _sizes(first)[:, None] + _sizes(second) - shared
    return np.asarray(shared / np.maximum(either, 1))


def box_ious(first: csr_matrix, second: csr_matrix, *, keys: np.ndarray) -> np.ndarray:
    """(M, K) of the same, of their boxes along the world's axes; ``keys`` (V,) are those of the voxels."""
    boxes, others = _boxes(first, keys), _boxes(second, keys)
    low = np.maximum(boxes[:, None, 0], others[None, :, 0])
    high = np.minimum(boxes[:, None, 1], others[None, :, 1])
    shared = np.maximum(high - low, 0).prod(axis=2)
    sizes, other_sizes = (np.prod(one[:, 1] - one[:, 0], axis=1) for one in (boxes, others))
    return np.asarray(shared / np.maximum(sizes[:, None] + other_sizes - shared, 1))


def _sizes(members: csr_matrix) -> np.ndarray:
    return np.diff(members.indptr)


def _boxes(members: csr_matrix, keys: np.ndarray) -> np.ndarray:
    """(M, 2, 3) int64 lower and upper corners, in voxels, of the voxels of each instance; empty of one without any."""
    count = members.shape[0]
    instance, corners = np.repeat(np.arange(count), _sizes(members)), voxel_corners(keys[members.indices])
    boxes = np.stack([np.full((count, 3), _REACH), np.full((count, 3), -_REACH)], axis=1)
    np.minimum.at(boxes[:, 0], instance, corners)
    np.maximum.at(boxes[:, 1], instance, corners + 1)
    boxes[_sizes(members) == 0] = 0
    return boxes
