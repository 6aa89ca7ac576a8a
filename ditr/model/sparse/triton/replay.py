"""A network's pass over voxels as two CUDA graphs, forward and backward: one launch in place of hundreds.

The host takes three times as long to launch the kernels of a U-Net one by one as the GPU takes to run them. So they are
captured once, on tensors with room for a larger batch than the first, and every batch is copied there; how many rows
it has is read on the device, so the numbers are those of a pass that is not captured, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from ditr.model.sparse.triton.convolution import compute_dtype
from ditr.model.sparse.triton.voxels import TritonVoxels, with_room
from ditr.model.sparse.voxels import SparseTensor, VoxelSet, require_two
from ditr.ranks import ALONE, Ranks

Place = tuple[Any, int]
"""Where something is added: a name, and the stride."""

OfRows = dict[Place, Tensor]
"""(V,) a number for each voxel where something is added."""
_WARM_UPS = 2
"""Passes before the capture, in which kernels are compiled and loaded."""


class Replay:
    """Of one network in training mode, whose weights stay where they are.

    Parameters
    ----------
    network: called with a tensor and ``inject``.
    ranks: over whose rows its norms are; each replays a pass where the others do.
    """

    def __init__(self, network: nn.Module, *, ranks: Ranks = ALONE) -> None:
        self._network = network
        self._ranks = ranks
        self._captured: _Captured | None = None

    def __call__(
        self,
        x: SparseTensor,
        *,
        added: Mapping[Place, Tensor],
        inject: Callable[[Mapping[Place, Tensor], VoxelSet, OfRows], Any],
    ) -> tuple[SparseTensor, OfRows]:
        """What the network makes of ``x`` on the same voxels, and numbers of rows that it met on its way.

        ``added`` are tensors on voxels of some stride. What ``inject`` makes of them the network calls; it writes
        numbers of rows under the same names. The next call overwrites both results, after which autograd refuses the
        way back of this one; and the next way back overwrites the gradients of the weights, which have to be None then.

        Raises
        ------
        DitrError: the batch has only one voxel of a stride.
        """
        chain = _chain(x)
        if self._ranks.count == 1:
            for one in chain:  # layers see how many there is room for
                require_two(one)
        weights = list(self._network.parameters())
        captured = self._captured
        fits = captured is not None and captured.fits(x, added, weights)
        if captured is None or self._ranks.any(not fits):
            rooms = [_larger(room) for room in self._ranks.most([len(one) for one in chain])]
            if captured is not None:
                rooms = [max(now, before) for now, before in zip(rooms, captured.rooms, strict=True)]
                self._captured = captured = None  # its memory is needed
            captured = self._captured = _capture(self._network, x, added=added, inject=inject, rooms=rooms)
        features, *of_rows = _Replayed.apply(  # type: ignore[no-untyped-call]
            captured, x, *added.values(), *weights
        )
        return x.with_features(features), dict(zip(captured.of_rows, of_rows, strict=True))


@dataclass(frozen=True, kw_only=True)
class _Captured:
    forward: Any
    backward: Any
    x: SparseTensor
    added: dict[Place, Tensor]
    out: Tensor
    of_rows: OfRows
    of_out: Tensor
    gradients: tuple[Tensor | None, ...]
    """Of all that was added, then of the weights."""
    weights: tuple[int, ...]
    """Where they lie."""
    dtype: torch.dtype

    @property
    def rooms(self) -> list[int]:
        return [len(one) for one in _chain(self.x)]

    def fits(self, x: SparseTensor, added: Mapping[Place, Tensor], weights: list[nn.Parameter]) -> bool:
        return (
            all(len(one) <= room for one, room in zip(_chain(x), self.rooms, strict=True))
            and added.keys() == self.added.keys()
            and self.weights == tuple(weight.data_ptr() for weight in weights)
            and self.dtype == compute_dtype()
        )

    def fill(self, x: SparseTensor, added: tuple[Tensor, ...]) -> None:
        for ours, theirs in zip(_chain(self.x), _chain(x), strict=True):
            ours.maps.copy_(theirs.maps)
        self.x.features[: len(x.voxels)].copy_(x.features)
        for room, given in zip(self.added.values(), added, strict=True):
            room[: len(given)].copy_(given)


def _capture(
    network: nn.Module,
    x: SparseTensor,
    *,
    added: Mapping[Place, Tensor],
    inject: Callable[[Mapping[Place, Tensor], VoxelSet, OfRows], Any],
    rooms: list[int],
) -> _Captured:
    chain, device = _chain(x), x.features.device
    own = with_room(rooms, device=device)
    room_of = {one.stride: room for one, room in zip(chain, rooms, strict=True)}
    given = SparseTensor(features=x.features.new_zeros(rooms[0], x.features.shape[1]), voxels=own)
    room_added = {
        (branch, stride): value.new_zeros(room_of[stride], value.shape[1]).requires_grad_()
        for (branch, stride), value in added.items()
    }
    for ours, theirs in zip(own.chain, chain, strict=True):
        ours.maps.copy_(theirs.maps)
    inputs = [*room_added.values(), *network.parameters()]
    of_rows: OfRows = {}
    before = [buffer.clone() for buffer in network.buffers()]
    aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            out = network(given, inject=inject(room_added, own, {})).features
            torch.autograd.grad(out, inputs, torch.zeros_like(out), allow_unused=True)
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)
        del out
    torch.cuda.current_stream(device).wait_stream(aside)
    torch.cuda.synchronize(device)
    forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(forward, capture_error_mode="thread_local"):
        out = network(given, inject=inject(room_added, own, of_rows)).features
    of_out = torch.zeros_like(out)
    with torch.cuda.graph(backward, pool=forward.pool(), capture_error_mode="thread_local"):
        gradients = torch.autograd.grad(out, inputs, of_out, allow_unused=True)
    return _Captured(
        forward=forward,
        backward=backward,
        x=given,
        added=room_added,
        out=out.detach(),
        of_rows={where: value.detach() for where, value in of_rows.items()},
        of_out=of_out,
        gradients=gradients,
        weights=tuple(weight.data_ptr() for weight in network.parameters()),
        dtype=compute_dtype(),
    )


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, captured: _Captured, x: SparseTensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        added = inputs[: len(captured.added)]
        captured.fill(x, added)
        captured.forward.replay()
        increment_version(captured.out)  # a graph writes without autograd's knowing
        ctx.save_for_backward(captured.out)
        ctx.captured, ctx.rows = captured, [len(one) for one in added]
        ctx.weights = inputs[len(added) :]
        rows = dict(zip(captured.added, ctx.rows, strict=True))
        of_rows = [value[: rows[where]].detach() for where, value in captured.of_rows.items()]
        ctx.mark_non_differentiable(*of_rows)
        return (captured.out[: len(x.voxels)].detach(), *of_rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor, *_of_rows: Tensor) -> tuple[Tensor | None, ...]:
        captured: _Captured = ctx.captured
        _ = ctx.saved_tensors  # refused where another pass has been replayed since
        assert all(weight.grad is None for weight in ctx.weights), "gradients of the pass before would be overwritten"
        captured.of_out[: len(of_out)].copy_(of_out)
        captured.backward.replay()
        count = len(ctx.rows)
        of_added = [
            None if gradient is None else gradient[:rows]
            for gradient, rows in zip(captured.gradients[:count], ctx.rows, strict=True)
        ]
        # New tensors on the same memory, or each would be copied when it becomes a weight's gradient.
        of_weights = [None if gradient is None else gradient.detach() for gradient in captured.gradients[count:]]
        return (None, None, *of_added, *of_weights)


def _chain(x: SparseTensor) -> list[TritonVoxels]:
    """Its voxels, then all that are coarser."""
    assert isinstance(x.voxels, TritonVoxels), f"{type(x.voxels).__name__} are another engine's"
    return list(x.voxels.chain)


def _larger(room: int) -> int:
    """An eighth more, in steps that waste little memory."""
    return -(-room * 9 // 8 // 1024) * 1024
