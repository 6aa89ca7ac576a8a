"""A batch as one piece of memory: one file between two processes, one copy to a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
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
class Block(Generic[T]):
    """The tensors of some dataclasses, one behind the other, and all else that they hold."""

    memory: Tensor
    """(bytes,) uint8."""
    layout: tuple[Any, ...]
    """The dataclasses, with a place for each tensor."""

    @classmethod
    def of(cls, items: Sequence[T]) -> Block[T]:
        """Copies the tensors, which are on one device."""
        tensors: list[tuple[_Place, Tensor]] = []
        size = 0

        def place(tensor: Tensor) -> _Place:
            nonlocal size
            found = _Place(size // tensor.itemsize, tensor.shape, tensor.dtype)
            tensors.append((found, tensor))
            size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
            return found

        layout = tuple(_with(item, kind=Tensor, change=place) for item in items)
        memory = torch.empty(size, dtype=torch.uint8, device=tensors[0][1].device)
        for where, tensor in tensors:
            where.of(memory).copy_(tensor)
        return cls(memory=memory, layout=layout)

    def to(self, device: torch.device) -> Block[T]:
        """The host does not wait for a copy to a GPU if the memory is pinned."""
        memory = self.memory.to(device, non_blocking=device.type == "cuda")
        return Block(memory=memory, layout=self.layout)

    def pin_memory(self) -> Block[T]:
        """In memory that a GPU reads by itself; the name is that which torch's loader calls."""
        return Block(memory=self.memory.pin_memory(), layout=self.layout)

    def items(self) -> tuple[T, ...]:
        """Their tensors are views of the memory."""
        return tuple(_with(item, kind=_Place, change=lambda place: place.of(self.memory)) for item in self.layout)


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
