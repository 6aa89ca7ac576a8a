"""Ranks as torch's process group has them: on GPUs NCCL adds, of the host gloo."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from ditr.errors import Code, DitrError
from ditr.ranks import RankLost, Ranks

T = TypeVar("T")
_REASON = "why a rank has ended"
_PATIENCE = timedelta(days=2)
"""Of a rank that waits: one that makes data and maps for the others may take long, and of one that died the launcher
knows, which ends the others."""


class RankGroup(Ranks):
    """Of the process group that is entered; ``store`` is where its ranks found each other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.index, self.count = distributed.get_rank(), distributed.get_world_size()
        self._idle = False
        # On the device too, where a captured pass reads it; there before anything is captured.
        self._counts = torch.ones((), dtype=torch.bool, device="cuda") if torch.cuda.is_available() else None

    @contextmanager
    def idle(self) -> Iterator[None]:
        self._set_idle(True)
        try:
            yield
        finally:
            self._set_idle(False)

    def total(self, values: Tensor) -> Tensor:
        return cast(Tensor, _Total.apply(values, self))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def gathered(self, values: Tensor) -> Tensor:
        rows = values.new_zeros(self.count, *values.shape)
        rows[self.index] = values
        return self.add(rows)  # of zeros and one number: exact, and on a GPU as fast as another collective

    @torch.no_grad()
    def add_up(self, weights: Iterable[nn.Parameter]) -> None:
        every = list(weights)
        some = self.most([int(weight.grad is not None) for weight in every])
        ours = [weight for weight, has in zip(every, some, strict=True) if has]
        for weight in ours:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [cast(Tensor, weight.grad) for weight in ours]
        flat = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    @torch.no_grad()
    def equalise(self, model: nn.Module) -> None:
        for value in (*model.parameters(), *model.buffers()):
            with self._together():
                distributed.broadcast(value, src=0)

    def sums(self, numbers: Sequence[float]) -> list[float]:
        return self.add(torch.tensor(numbers, dtype=torch.float64)).tolist()

    def most(self, numbers: Sequence[int]) -> list[int]:
        values = torch.tensor(numbers)
        with self._together():
            distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return values.tolist()

    def collect(self, part: T) -> list[T]:
        parts: list[Any] = [None] * self.count
        with self._together():
            distributed.all_gather_object(parts, part)
        return parts

    def tell(self, text: str | None) -> str | None:
        said: list[Any] = [text]
        with self._together():
            distributed.broadcast_object_list(said)
        return cast("str | None", said[0])

    def add(self, values: Tensor) -> Tensor:
        """The sum, without gradients."""
        given = self._given(values)
        with self._together():
            distributed.all_reduce(given)
        return given

    def report(self, error: Exception) -> None:
        said = {"rank": self.index, "text": "".join(traceback.format_exception(error))}
        if isinstance(error, DitrError):
            said |= {"what": error.what, "code": error.code, "where": error.where, "fix": error.fix}
        if not isinstance(error, RankLost):
            self._store.set(_REASON, json.dumps(said))

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # whatever the backends raise: they share no better class
            raise self._reason() from error

    def _reason(self) -> Exception:
        """Why another rank has ended."""
        said: dict[str, Any] = json.loads(self._store.get(_REASON)) if self._store.check([_REASON]) else {}
        if "what" in said:
            return DitrError(said["what"], code=Code(said["code"]), where=said["where"], fix=said["fix"])
        lost = RankLost(f"rank {said['rank']} has failed" if said else "another rank of this run has ended")
        for line in filter(None, [said.get("text")]):
            lost.add_note(line)
        return lost

    def _given(self, values: Tensor) -> Tensor:
        """A copy to work on: nothing of an idle rank, not even what is no number."""
        if values.is_cuda:
            return torch.where(cast(Tensor, self._counts), values, 0).contiguous()
        return torch.zeros_like(values) if self._idle else values.clone().contiguous()

    def _set_idle(self, idle: bool) -> None:
        self._idle = idle
        if self._counts is not None:
            self._counts.fill_(not idle)


@contextmanager
def rank_group(url: str = "env://", *, rank: int = -1, count: int = -1) -> Iterator[RankGroup]:
    """While entered, this process is one of the ranks that meet at ``url``, or that its environment names.

    After an error the group is left as it is: to end it would be to wait for ranks that may be gone.
    """
    store, rank, count = next(iter(rendezvous(url, rank, count)))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    yield RankGroup(store)
    distributed.destroy_process_group()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: RankGroup) -> Tensor:
        ctx.ranks = ranks
        return ranks.add(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.add(of_total), None
