"""Sums in a fixed order, so that the same training gives the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ditr.spec.models import Engine


@contextmanager
def reproducible(device: torch.device, *, engine: Engine) -> Iterator[None]:
    """What is computed in here has the same bits whenever it is computed with so many threads.

    Otherwise torch adds gradients of indexed rows in the order in which its threads come; and so does MinkowskiEngine,
    which is why the model voxelises and convolves on one (``sparse.one_thread``). On a GPU nothing orders the sums of
    MinkowskiEngine, and nothing is asked of torch.
    """
    if where_bits_repeat(device, engine=engine) != device:
        yield
        return
    filling: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), filling.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    filling.fill_uninitialized_memory = False  # no step reads memory that it did not write
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        filling.fill_uninitialized_memory = before[1]


def where_bits_repeat(device: torch.device, *, engine: Engine) -> torch.device:
    """``device``, or the CPU where nothing orders the sums of the engine there."""
    return torch.device("cpu") if device.type == "cuda" and engine == "minkowski" else device
