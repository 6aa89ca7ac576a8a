"""How far apart the points of a batch may lie."""

from __future__ import annotations

import pytest
import torch

from ditr.errors import Code, DitrError
from ditr.model.sparse.triton.maps import MAX_EXTENT
from tests.reference.clouds import batch_of, level_of, voxels_of


def test_as_far_as_a_key_reaches() -> None:
    lowest = 15 - MAX_EXTENT // 2 // 16 * 16  # the last voxel of one of stride 16
    ends = torch.tensor([[lowest, 7, 2], [lowest + MAX_EXTENT, 7, 2], [lowest + MAX_EXTENT - 1, 7, 1]])
    voxels = voxels_of(batch_of([ends, ends[:1]]), engine="triton")
    rows = voxels.tensor.voxels.corners[voxels.voxel_of_point].tolist()
    assert rows == [[0, *corner] for corner in ends.tolist()] + [[1, *ends[0].tolist()]]
    found = level_of(voxels, stride=1)
    assert found.pairs(27, onto=found) == 4 + 2, "each itself, and two that touch"
    assert found.pairs(125, onto=found) == 4 + 2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_farther_is_refused(axis: int) -> None:
    ends = torch.zeros(2, 3, dtype=torch.int64)
    ends[1, axis] = MAX_EXTENT + 1
    with pytest.raises(DitrError) as caught:
        voxels_of(batch_of([ends[:1], ends[1:]]), engine="triton")
    error = caught.value
    assert (error.code, error.where) == (Code.DATASET, "scene0000_00_0, scene0000_00_1")
    assert "3,274 m apart, 65,489 voxels along an axis; the triton engine has room for 65,488" in error.what
    assert "execution.engine: minkowski" in error.fix
