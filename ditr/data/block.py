"""A batch as one piece of memory: one file between two processes, one copy to a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ditr.data.batch import Sample

_ALIGNMENT = 64
"""Bytes; every tensor begins at a multiple, as those do that torch allocates: sums on the CPU may differ by where."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the block."""

    offset: int
    """In elements of its type."""
    shape: torch.Size
    dtype: torch.dtype

    def of(self, memory: Tensor) -> Tensor:
        typed = memory.view(self.dtype)
        return typed[self.offset : self.offset + math.prod(self.shape)].view(self.shape)


@dataclass(frozen=True, kw_only=True)
class Block:
    """The tensors of some samples, one behind the other, and all else that they hold."""

    memory: Tensor
    """(bytes,) uint8."""
    layout: tuple[Any, ...]
    """The samples, with a place for each tensor."""

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Block:
        """Copies the tensors, which are on one device."""
        tensors: list[tuple[_Place, Tensor]] = []
        size = 0

        def place(tensor: Tensor) -> _Place:
            nonlocal size
            found = _Place(size // tensor.itemsize, tensor.shape, tensor.dtype)
            tensors.append((found, tensor))
            size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
            return found

        layout = tuple(_with(sample, kind=Tensor, change=place) for sample in samples)
        memory = torch.empty(size, dtype=torch.uint8, device=samples[0].xyz.device)
        for where, tensor in tensors:
            where.of(memory).copy_(tensor)
        return cls(memory=memory, layout=layout)

    def to(self, device: torch.device) -> Block:
        """The host does not wait for a copy to a GPU if the memory is pinned."""
        return Block(memory=self.memory.to(device, non_blocking=True), layout=self.layout)

    def pin_memory(self) -> Block:
        """In memory that a GPU reads by itself; the name is that which torch's loader calls."""
        return Block(memory=self.memory.pin_memory(), layout=self.layout)

    def samples(self) -> tuple[Sample, ...]:
        """Their tensors are views of the memory."""
        return tuple(_with(sample, kind=_Place, change=lambda place: place.of(self.memory)) for sample in self.layout)


def _with(item: Any, *, kind: type, change: Callable[[Any], Any]) -> Any:
    """A dataclass with all values of a kind changed, those of dataclasses in it too."""
    changed: dict[str, Any] = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, kind):
            changed[field.name] = change(value)
        elif is_dataclass(value) and not isinstance(value, _Place):
            changed[field.name] = _with(value, kind=kind, change=change)
    return replace(item, **changed)
