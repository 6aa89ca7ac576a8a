"""A convolution's norm over the voxels of all ranks, by both engines: what one rank has of a whole batch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ditr.model.batch_norm import SharedNorm, ranks_of
from ditr.model.sparse import VoxelSet
from ditr.model.sparse.minkowski import MinkowskiVoxels
from ditr.model.sparse.triton import map_kernels
from ditr.model.sparse.triton.launch import kernel as launch
from ditr.model.sparse.triton.maps import StrideMaps
from ditr.model.sparse.triton.voxels import TritonVoxels
from ditr.ranks import ALONE, Ranks
from ditr.spec.models import Engine
from tests.reference.local_ranks import on_ranks

ROWS, PARTS = 300, [slice(0, 260), slice(260, 300), slice(0, 7)]
"""Voxels of a batch, and those of each of three ranks; the last is idle: what it has is not to count."""
LIMIT = 1e-5
CPU = torch.device("cpu")


def voxels(count: int, engine: Engine) -> VoxelSet:
    """Which know no others, nor where they are: a kernel of one offset asks neither."""
    if engine == "minkowski":
        return MinkowskiVoxels(None, manager=None, stride=16)
    maps = StrideMaps(count, coarse=None, stem=False, device=CPU)
    t = maps.tensors
    columns = len(t["alone_rows"])
    launch(map_kernels.place_alone, BLOCK=512)(
        (-(-columns // 512), 1, 1), t["count"], t["alone_present"], t["alone_rows"], t["alone_starts"], count, columns
    )
    return TritonVoxels(maps, level=4, coarser=None)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_rank(ranks: Ranks, engine: Engine, part: slice) -> dict[str, Any]:
    norm = nn.BatchNorm1d(24)
    norm.weight.data = 1 + 0.3 * drawn(24, seed=1)
    own = norm if ranks is ALONE else SharedNorm.of(norm, ranks=ranks)
    kernel = nn.Parameter(drawn(17, 24, seed=2))
    x, shortcut, weights = (drawn(ROWS, width, seed=3 + width)[part] for width in (17, 24, 24))
    x, on = (x + 3).requires_grad_(), voxels(len(x), engine)  # far from 0, where sums of squares would lose digits
    with ranks.idle() if ranks.index == 2 else nullcontext():
        out = on.convolve_and_norm(x, kernel, own, onto=on, shortcut=shortcut, relu=True)
        (out * weights).sum().backward()
        ranks.add_up([kernel, own.weight, own.bias])
    found = {"out": out.detach(), "x": x.grad, "kernel": kernel.grad, "weight": own.weight.grad, "bias": own.bias.grad}
    return {**found, "mean": own.running_mean, "var": own.running_var}


@pytest.mark.parametrize("engine", ["minkowski", "triton"])
def test_three_ranks_of_which_one_is_idle_have_the_norm_of_one(engine: Engine) -> None:
    whole = by_rank(ALONE, engine, slice(ROWS))
    shared = on_ranks(3, lambda ranks: by_rank(ranks, engine, PARTS[ranks.index]))
    rows = {name: torch.cat([found.pop(name) for found in shared[:2]]) for name in ("out", "x")}
    for found in (rows, *shared[:2]):
        for name, value in found.items():
            deviation = float((value - whole[name]).abs().max() / whole[name].abs().max())
            assert deviation < LIMIT, f"{name}: {deviation:.1e}"


def test_a_norm_that_is_shared_keeps_its_weights_and_names() -> None:
    norm = nn.BatchNorm1d(6)
    shared = SharedNorm.of(norm, ranks=ALONE)
    assert shared.weight is norm.weight
    assert shared.running_var is norm.running_var
    assert shared.state_dict().keys() == norm.state_dict().keys()
    assert ranks_of(norm) is ALONE
