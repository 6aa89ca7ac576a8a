"""What a captured pass leaves is overwritten by the next: whoever would read it then is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ditr.model.sparse import SparseTensor, Voxels
from ditr.model.sparse.triton import TritonVoxels, replay
from ditr.model.sparse.triton.replay import Replay, _Captured, _Replayed
from ditr.model.sparse.triton.voxels import with_room
from ditr.spec.models import Engine

ROOMS = (150, 70, 45, 30, 20)


@dataclass(frozen=True)
class Graph:
    """In the place of a CUDA graph: writes where autograd does not look."""

    replay: Callable[[], None]


@pytest.fixture
def weight() -> nn.Parameter:
    return nn.Parameter(torch.tensor(3.0))


@pytest.fixture
def captured(weight: nn.Parameter) -> _Captured:
    """Of features * weight."""
    given = SparseTensor(features=torch.zeros(ROOMS[0], 3), voxels=with_room(ROOMS, device=torch.device("cpu")))
    out, of_out, of_weight = torch.zeros(ROOMS[0], 3), torch.zeros(ROOMS[0], 3), torch.zeros(())

    def forward() -> None:
        out.numpy()[:] = (given.features * weight.detach()).numpy()

    def backward() -> None:
        of_weight.numpy()[...] = (given.features * of_out).sum().numpy()

    return _Captured(
        forward=Graph(forward),
        backward=Graph(backward),
        x=given,
        added={},
        out=out,
        of_rows={},
        of_out=of_out,
        gradients=(of_weight,),
        weights=(weight.data_ptr(),),
        dtype=torch.float32,
    )


@pytest.fixture
def replayed(captured: _Captured, weight: nn.Parameter, by_engine: dict[Engine, Voxels]) -> Callable[[float], Tensor]:
    """The sum of a pass over the same voxels, whose features are that number."""
    x = by_engine["triton"].tensor
    assert isinstance(x.voxels, TritonVoxels)

    def run(value: float) -> Tensor:
        given = x.with_features(torch.full_like(x.features, value))
        (out,) = _Replayed.apply(captured, given, weight)  # type: ignore[no-untyped-call]
        total: Tensor = out.sum()
        return total

    return run


def test_passes_one_after_the_other(
    replayed: Callable[[float], Tensor], weight: nn.Parameter, by_engine: dict[Engine, Voxels]
) -> None:
    numbers = by_engine["triton"].tensor.features.numel()
    for value in (1.0, 2.0):
        weight.grad = None
        replayed(value).backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        assert weight.grad.item() == value * numbers


def test_a_pass_that_was_overwritten_has_no_way_back(replayed: Callable[[float], Tensor]) -> None:
    first, second = replayed(1.0), replayed(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (first + second).backward()  # type: ignore[no-untyped-call]


def test_gradients_that_would_be_overwritten_are_not_added_to(replayed: Callable[[float], Tensor]) -> None:
    replayed(1.0).backward()  # type: ignore[no-untyped-call]
    with pytest.raises(AssertionError, match="would be overwritten"):
        replayed(2.0).backward()  # type: ignore[no-untyped-call]


def test_a_batch_that_is_too_large_makes_no_room_where_there_is_enough(
    captured: _Captured, by_engine: dict[Engine, Voxels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would grow with every such batch."""
    asked: list[list[int]] = []

    def capture(*_: object, rooms: list[int], **__: Any) -> _Captured:
        asked.append(rooms)
        return captured

    monkeypatch.setattr(replay, "_capture", capture)
    network = Replay(nn.Linear(1, 1))
    for rooms in ((16, 4096, 4096, 4096, 4096), (1024, 8, 4096, 2048, 4096)):
        voxels = with_room(rooms, device=torch.device("cpu"))
        network._captured = replace(captured, x=SparseTensor(features=torch.zeros(rooms[0], 3), voxels=voxels))
        network(by_engine["triton"].tensor, added={}, inject=lambda *_: None)
    assert asked == [[1024, 4096, 4096, 4096, 4096], [1024, 1024, 4096, 2048, 4096]]
