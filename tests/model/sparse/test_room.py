"""Maps with room for more: a captured pass reads the maps of one batch after another from the same tensors."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from ditr.errors import DitrError
from ditr.model.sparse import BatchNorm, Convolution, SparseTensor, Voxels, concatenate
from ditr.model.sparse.triton import TritonVoxels
from ditr.model.sparse.triton.replay import Replay
from ditr.model.sparse.triton.voxels import with_room
from ditr.spec.models import Engine
from tests.reference.clouds import batch_of, cloud, voxels_of

ROOMS = (150, 70, 45, 30, 20)


class EveryKernel(nn.Module):
    """Stem, down, 3 x 3 x 3, up, a shortcut of 1 x 1 x 1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = Convolution(3, 5, size=5), BatchNorm(5, momentum=0.1)
        self.down, self.down_norm = Convolution(5, 6, size=2), BatchNorm(6, momentum=0.1)
        self.within, self.within_norm = Convolution(6, 6, size=3), BatchNorm(6, momentum=0.1)
        self.up, self.up_norm = Convolution(6, 7, size=2, transposed=True), BatchNorm(7, momentum=0.1)
        self.alone, self.alone_norm = Convolution(12, 17, size=1), BatchNorm(17, momentum=0.1, relu=False)
        self.last, self.last_norm = Convolution(12, 17, size=3), BatchNorm(17, momentum=0.1)

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = self.norm(self.stem(x))
        coarse = self.down_norm(self.down(x, onto=x.voxels.coarser))
        coarse = self.within_norm(self.within(coarse), shortcut=coarse)
        both = concatenate(self.up_norm(self.up(coarse, onto=x.voxels)), x)
        out: SparseTensor = self.last_norm(self.last(both), shortcut=self.alone_norm(self.alone(both)))
        return out


@pytest.fixture
def nan_in_new_memory() -> Iterator[None]:
    """Whatever is read before it is written, or of a row that no voxel has, is seen."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def padded_with_nan(values: Tensor, room: int) -> Tensor:
    return nn.functional.pad(values, (0, 0, 0, room - len(values)), value=torch.nan)


def all_numbers(net: nn.Module, x: SparseTensor, *, of_out: Tensor) -> dict[str, Tensor]:
    net = deepcopy(net)
    out = net(x).features
    parameters = dict(net.named_parameters())
    if net.training:
        gradients = torch.autograd.grad(out, list(parameters.values()), of_out)
        found = dict(zip(parameters, gradients, strict=True))
    else:
        found = {}
    return {"out": out.detach(), **found, **dict(net.named_buffers())}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.usefixtures("nan_in_new_memory")
def test_the_same_bits_after_another_larger_batch(by_engine: dict[Engine, Voxels], training: bool) -> None:
    small = voxels_of(batch_of([cloud(13, seed=8, within=4), cloud(4, seed=9)]), engine="triton").tensor
    room = with_room(ROOMS, device=torch.device("cpu"))
    for given in (by_engine["triton"].tensor.voxels, small.voxels):
        assert isinstance(given, TritonVoxels)
        for ours, theirs in zip(room.chain, given.chain, strict=True):
            ours.maps.copy_(theirs.maps)
    torch.manual_seed(0)
    net = EveryKernel().train(training)
    of_out = torch.randn(len(small.voxels), 17)
    expected = all_numbers(net, small, of_out=of_out)
    x = SparseTensor(features=padded_with_nan(small.features, ROOMS[0]), voxels=room)
    found = all_numbers(net, x, of_out=padded_with_nan(of_out, ROOMS[0]))
    found["out"] = found["out"][: len(small.voxels)]
    for name, wanted in expected.items():
        assert wanted.isfinite().all(), name
        assert torch.equal(found[name], wanted), name


def test_voxels_of_copied_maps_know_no_place() -> None:
    with pytest.raises(AssertionError, match="those of another batch at every step"):
        _ = with_room(ROOMS, device=torch.device("cpu")).corners


def test_one_voxel_is_refused_whatever_room_there_is(one_voxel: dict[Engine, Voxels]) -> None:
    with pytest.raises(DitrError, match="only one voxel of stride 1"):
        Replay(EveryKernel())(one_voxel["triton"].tensor, added={}, inject=lambda *_: None)
