"""Superpoints from any segmenter's masks, or an over-segmentation (docs/reference/esam.md, Making a frame 2; 8)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.cluster.vq import kmeans, vq

from ditr.data.frame_files import read_image
from ditr.errors import Code, DitrError

UNCOVERED = -1
_CLUSTERS = 10
_STARTS = 10


def read_mask_image(path: Path, *, height: int, width: int) -> np.ndarray:
    """(H, W) int64 segment of each pixel, ``UNCOVERED`` where no mask lies.

    The file is an 8 or 16 bit label image, one channel, 0 = uncovered. Painting masks from the largest to the smallest
    gives what ESAM has.
    """
    labels = read_image(path, fix="make a label image of this frame, or choose --superpoints oversegmentation")
    if labels.shape != (height, width) or labels.dtype.kind not in "ui" or labels.min() < 0:
        raise DitrError(
            f"the mask image is {labels.shape} {labels.dtype}, not ({height}, {width}) of whole numbers",
            code=Code.DATASET,
            where=str(path),
            fix="write label images of the depth image's size: one channel of 8 or 16 bits, 0 where no mask lies",
        )
    return labels.astype(np.int64) - 1


def group_points(segments: np.ndarray, xyzrgb: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """(N,) int64 superpoints 0..S-1, each present, of points with ``segments`` (N,) and ``xyzrgb`` (N, 6).

    Uncovered points are clustered by k-means over metres and 0..255 colours, so that colour decides; fewer than ten
    of them are one superpoint. It is the best of ten runs started by k-means++, as in ESAM, with two differences:
    ``rng`` makes it repeatable, and the iterations are scipy's, which stop at another threshold than scikit-learn's.
    """
    groups = segments.astype(np.int64)
    uncovered = groups == UNCOVERED
    first = groups.max() + 1
    if uncovered.sum() < _CLUSTERS:
        groups[uncovered] = first
    else:
        left = xyzrgb[uncovered].astype(np.float64)
        runs = [kmeans(left, _first_centres(left, rng)) for _ in range(_STARTS)]
        centres, _ = min(runs, key=lambda run: float(run[1]))
        groups[uncovered] = first + vq(left, centres)[0]
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _first_centres(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each next centre is a point drawn by its squared distance to the nearest one before."""
    centres = [points[rng.integers(len(points))]]
    squared = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < _CLUSTERS and squared.any():
        centres.append(points[rng.choice(len(points), p=squared / squared.sum())])
        squared = np.minimum(squared, ((points - centres[-1]) ** 2).sum(axis=1))
    return np.stack(centres)
