"""The voxel engine: one small interface, and beside it what implements it."""

from __future__ import annotations

from ditr.data.batch import Batch
from ditr.model.sparse.layers import BatchNorm, Convolution, Convolved
from ditr.model.sparse.voxels import (
    SparseTensor,
    Voxels,
    VoxelSet,
    concatenate,
    one_thread,
    require_same_voxels,
)
from ditr.spec.models import Engine

__all__ = [
    "BatchNorm",
    "Convolution",
    "Convolved",
    "SparseTensor",
    "VoxelSet",
    "Voxels",
    "concatenate",
    "one_thread",
    "require_same_voxels",
    "voxelise",
]


def voxelise(batch: Batch, *, voxel_size_m: float, engine: Engine) -> Voxels:
    """Floor the coordinates to voxels and average the colours in each (docs/reference/esam.md, Voxels)."""
    if engine == "triton":
        from ditr.model.sparse.triton import voxelise as voxelise_for
    else:
        from ditr.model.sparse.minkowski import voxelise as voxelise_for
    return voxelise_for(batch, voxel_size_m=voxel_size_m)
