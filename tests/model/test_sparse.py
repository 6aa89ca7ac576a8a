from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from ditr.data.batch import Batch, Sample
from ditr.model.sparse import require_same_voxels, voxelise

VOXEL = 0.05


def test_import_is_silent_and_leaves_collections_alone() -> None:
    code = "import collections, ditr.model.sparse.minkowski; print(hasattr(collections, 'Sequence'))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_voxels_are_floored_averaged_and_read_back_in_point_order(batch: Batch) -> None:
    voxels = voxelise(batch, voxel_size_m=VOXEL, engine="minkowski")

    colours = defaultdict(list)
    keys = []
    for index, sample in enumerate(batch):
        corners = np.floor(sample.xyz.numpy() / np.float32(VOXEL)).astype(int)
        assert (corners < 0).any()
        for corner, colour in zip(corners.tolist(), sample.colour.numpy(), strict=True):
            keys.append((index, *corner))
            colours[keys[-1]].append(colour)
    assert len(keys) > len(colours) > 1, "the frame must have voxels with several points"

    coordinates = [tuple(row) for row in voxels.tensor.voxels.corners.tolist()]
    assert sorted(coordinates) == sorted(colours)
    expected = np.stack([np.mean(colours[key], axis=0) for key in coordinates])
    np.testing.assert_allclose(voxels.tensor.features.numpy(), expected, atol=1e-6)
    assert [coordinates[row] for row in voxels.voxel_of_point.tolist()] == keys
    assert voxels.sizes == (600, 450)


def test_just_below_zero_is_voxel_minus_one(make_sample: Callable[..., Sample]) -> None:
    sample = make_sample(3, points=2, superpoints=2)
    sample = replace(sample, xyz=torch.tensor([[-0.01, 0.01, -0.06], [0.01, 0.01, 0.06]]))
    voxels = voxelise(Batch(samples=(sample,)), voxel_size_m=VOXEL, engine="minkowski")
    rows = voxels.tensor.voxels.corners[voxels.voxel_of_point].tolist()
    assert rows == [[0, -1, 0, -2], [0, 0, 0, 1]]
    assert torch.equal(voxels.tensor.features[voxels.voxel_of_point], sample.colour)


def test_tensors_of_two_voxelisations_are_told_apart(batch: Batch) -> None:
    one, two = (
        voxelise(batch, voxel_size_m=VOXEL, engine="minkowski").tensor,
        voxelise(batch, voxel_size_m=VOXEL, engine="minkowski").tensor,
    )
    require_same_voxels(one.voxels, one.with_features(one.features * 2).voxels, what="same")
    with pytest.raises(AssertionError, match=r"here: .*different voxels, \d+ of stride 1 and \d+ of stride 1"):
        require_same_voxels(one.voxels, two.voxels, what="here")
    with pytest.raises(AssertionError, match=r"here: .*of stride 1 and \d+ of stride 2"):
        require_same_voxels(one.voxels, one.voxels.coarser, what="here")
