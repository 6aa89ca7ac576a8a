"""Voxels that several tests look at: making them takes the interpreter two seconds."""

from __future__ import annotations

import pytest
import torch

from ditr.data.batch import Batch
from ditr.model.sparse import Voxels
from ditr.spec.models import Engine
from tests.reference.clouds import batch_of, cloud, voxels_of


@pytest.fixture(scope="session")
def three_samples() -> Batch:
    """Around zero with a voxel alone; some at the very same places; and one voxel that is all of its sample."""
    near = cloud(24, seed=0)
    one = torch.cat([near, torch.tensor([[9, -3, 0]])])
    other = torch.cat([near[:11].flip(0), cloud(9, seed=1, lowest=4)])
    return batch_of([one, other, torch.tensor([[-1, 0, 5]])])


@pytest.fixture(scope="session")
def by_engine(three_samples: Batch) -> dict[Engine, Voxels]:
    """Of ``three_samples``."""
    return {
        "triton": voxels_of(three_samples, engine="triton"),
        "minkowski": voxels_of(three_samples, engine="minkowski"),
    }


@pytest.fixture(scope="session")
def one_voxel() -> dict[Engine, Voxels]:
    """Of every stride."""
    batch = batch_of([torch.tensor([[-7, 20, 33]])])
    return {"triton": voxels_of(batch, engine="triton"), "minkowski": voxels_of(batch, engine="minkowski")}
