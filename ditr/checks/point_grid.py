"""Features of points as a map of their image, so that they can be held against it like any map."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ditr.checks.raw_points import pixels_of
from ditr.data.frame import Frame

_CELL = 16
"""Pixels, both ways: a frame's 20,000 points are a dozen a cell."""


def on_image(features: Tensor, frame: Frame) -> Tensor:
    """(C, rows, columns) float32 of features (C, 1, N): means of the visible points of each cell of pixels; of the
    nearest cell with some where there are none."""
    pixels, camera = pixels_of(frame), frame.intrinsics
    rows, columns = -(-camera.height // _CELL), -(-camera.width // _CELL)
    u, v = np.rint(pixels.uv[pixels.visible]).astype(np.int64).T // _CELL
    cells = np.clip(v, 0, rows - 1) * columns + np.clip(u, 0, columns - 1)
    counts = np.bincount(cells, minlength=rows * columns)
    sums = torch.zeros(rows * columns, len(features))
    sums.index_add_(0, torch.from_numpy(cells), features[:, 0, pixels.visible].T.float())
    means = (sums / torch.from_numpy(np.maximum(counts, 1))[:, None]).T.reshape(-1, rows, columns)
    empty = (counts == 0).reshape(rows, columns)
    down, right = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return means[:, down, right]
