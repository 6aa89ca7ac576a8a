"""Operations of a forward pass against neighbours that are counted one by one in sets of voxels."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from ditr.data.batch import Batch
from ditr.model.esam import EsamSingleView
from ditr.model.flops import forward_flops
from ditr.model.sparse import voxelise
from ditr.spec.fusion import FusionSpec, StemSpec

Voxel = tuple[int, int, int, int]


def levels_of(batch: Batch, voxel_size_m: float) -> list[set[Voxel]]:
    """The voxels of strides 1, 2, 4, 8, 16: batch index and corner."""
    levels: list[set[Voxel]] = [set()]
    for index, sample in enumerate(batch):
        corners = torch.floor(sample.xyz / voxel_size_m).int().tolist()
        levels[0] |= {(index, x, y, z) for x, y, z in corners}
    for level in range(1, 5):
        stride = 2**level
        levels.append({(b, *(at // stride * stride for at in xyz)) for b, *xyz in levels[-1]})  # type: ignore[misc]
    return levels


def neighbours(voxels: set[Voxel], *, stride: int, reach: int) -> int:
    """Ordered pairs of voxels that lie at most ``reach`` strides apart along every axis, each with itself included."""
    steps = [step * stride for step in range(-reach, reach + 1)]
    return sum(
        (b, x + dx, y + dy, z + dz) in voxels for b, x, y, z in voxels for dx, dy, dz in product(steps, repeat=3)
    )


def by_hand(backbone: nn.Module, levels: list[set[Voxel]]) -> int:
    """Of every convolution of the U-Net, by the name of its weight: which voxels it connects."""
    count = [len(voxels) for voxels in levels]
    threes = [neighbours(voxels, stride=2**level, reach=1) for level, voxels in enumerate(levels)]
    total = 0
    for name, weight in backbone.named_parameters():
        if not name.endswith("kernel"):
            continue
        if name == "conv0p1s1.kernel":
            pairs = neighbours(levels[0], stride=1, reach=2)
        elif down := re.match(r"conv(\d)p\ds2", name):
            pairs = count[int(down[1]) - 1]  # every voxel has one parent
        elif up := re.match(r"convtr(\d)p", name):
            pairs = count[7 - int(up[1])]
        else:
            block = int(name.removeprefix("block")[0])
            level = block if block <= 4 else 8 - block
            pairs = count[level] if "downsample" in name else threes[level]
        total += 2 * pairs * weight.shape[-2] * weight.shape[-1]
    return total


class Backbone(nn.Module):
    """The model's part that works on voxels."""

    def __init__(self, model: EsamSingleView) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.voxel_size_m = model.voxel_size_m

    def forward(self, batch: Batch) -> Tensor:
        return self.backbone(voxelise(batch, voxel_size_m=self.voxel_size_m, engine="minkowski").tensor).features  # type: ignore[no-any-return]


def test_sparse_operations_are_the_pairs_of_voxels_times_their_channels(
    batch: Batch, build: Callable[[FusionSpec], EsamSingleView]
) -> None:
    model = build(FusionSpec()).eval()
    expected = by_hand(model.backbone, levels_of(batch, model.voxel_size_m))
    whole, backbone = forward_flops(model, batch), forward_flops(Backbone(model).eval(), batch)
    assert whole.sparse == expected
    colours = 2 * sum(3 * len(sample.xyz) for sample in batch)
    assert (backbone.sparse, backbone.dense) == (expected, colours), "kernels of one voxel are not counted twice"
    assert whole.dense > 0, "the query decoder"


def test_a_projection_of_features_is_dense(batch: Batch, build: Callable[[FusionSpec], EsamSingleView]) -> None:
    without, stem = build(FusionSpec()).eval(), build(FusionSpec(stem=StemSpec())).eval()
    before, after = forward_flops(without, batch), forward_flops(stem, batch)
    assert after.sparse == before.sparse
    tokens = sum(6 * 8 for _ in batch)
    (projection,) = (weight for name, weight in stem.named_parameters() if name.startswith("stem") and weight.ndim == 2)
    assert after.dense - before.dense == pytest.approx(2 * tokens * projection.numel())
