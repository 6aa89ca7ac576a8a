"""Sums in a fixed order, so that the same training gives the same bits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ditr.spec.models import Engine


@contextmanager
def reproducible(device: torch.device, *, engine: Engine) -> Iterator[None]:
    """A step in here gives the same bits whenever it is made.

    Otherwise torch adds gradients of indexed rows in the order in which its threads come, and MinkowskiEngine lists the
    pairs of a kernel map so: hence one thread on the CPU. On a GPU MinkowskiEngine's sums are in no order, and nothing
    is asked of torch.
    """
    if device.type == "cuda" and engine == "minkowski":
        yield
        return
    threads = torch.get_num_threads()
    filling: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), filling.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    filling.fill_uninitialized_memory = False  # no step reads memory that it did not write
    if device.type == "cpu":
        torch.set_num_threads(1)
    else:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which torch refuses to multiply
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        filling.fill_uninitialized_memory = before[1]
        torch.set_num_threads(threads)
