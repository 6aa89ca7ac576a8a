"""Small clouds of voxels as batches, and rows in an order that no engine decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ditr.data.batch import Batch, Sample, Targets
from ditr.model.sparse import Voxels, VoxelSet, voxelise
from ditr.spec.models import Engine

VOXEL_SIZE_M = 0.05


def cloud(count: int, *, seed: int, within: int = 6, lowest: int = -3) -> Tensor:
    """(count, 3) int64: different voxels of a cube, in any order."""
    draw = torch.Generator().manual_seed(seed)
    cells = torch.randperm(within**3, generator=draw)[:count]
    return torch.stack([cells % within, cells // within % within, cells // within**2], dim=1) + lowest


def batch_of(clouds: Sequence[Tensor]) -> Batch:
    """A point in the middle of each voxel (V, 3) of each sample, with a colour that differs."""
    draw = torch.Generator().manual_seed(0)
    middles = [(corners + 0.5) * VOXEL_SIZE_M for corners in clouds]
    return points_of([(xyz, torch.randn(len(xyz), 3, generator=draw)) for xyz in middles])


def points_of(samples: Sequence[tuple[Tensor, Tensor]]) -> Batch:
    """(N, 3) metres and (N, 3) colours of each sample, which nothing else is known of."""
    none = torch.zeros(0, dtype=torch.int64)
    targets = Targets(
        instance_of_point=none, instance_of_superpoint=none, class_of_superpoint=none, labels=none, ids=none
    )
    return Batch(
        samples=tuple(
            Sample(
                frame_id=f"scene0000_00_{number}",
                seed=number,
                xyz=xyz.float(),
                colour=colour,
                camera=torch.zeros(3, dtype=torch.float64),
                superpoints=torch.zeros(len(xyz), dtype=torch.int64),
                num_superpoints=1,
                uv=torch.zeros(len(xyz), 2),
                uv_valid=torch.zeros(len(xyz), dtype=torch.bool),
                map_hw=(480, 640),
                tokens=None,
                targets=targets,
            )
            for number, (xyz, colour) in enumerate(samples)
        )
    )


def voxels_of(batch: Batch, *, engine: Engine) -> Voxels:
    return voxelise(batch, voxel_size_m=VOXEL_SIZE_M, engine=engine)


def level_of(voxels: Voxels, *, stride: int) -> VoxelSet:
    found: VoxelSet = voxels.tensor.voxels
    while found.stride < stride:
        found = found.coarser
    return found


def by_place(voxels: VoxelSet) -> Tensor:
    """(V,) int64 rows such that the corners ascend: batch index, then x, y and z."""
    corners = cast(list[list[int]], voxels.corners.tolist())
    return torch.tensor(sorted(range(len(corners)), key=corners.__getitem__))


def places(voxels: VoxelSet) -> list[tuple[int, ...]]:
    """The corners in that order."""
    return [tuple(row) for row in voxels.corners[by_place(voxels)].tolist()]


def rows_in(voxels: VoxelSet, values: Tensor) -> Tensor:
    """Values in the order of ``by_place`` as the engine has its rows."""
    return torch.empty_like(values).index_copy(0, by_place(voxels), values)
