"""Launching a kernel without what Triton does anew at each call: it looks at every argument, which takes 40 us."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Kernels run in Python, on the CPU: for tests."""

Constant = int | bool | str


class Kernel:
    """A kernel with its constants, compiled for a device and the types of its arguments when first launched so.

    What Triton compiles then holds for all later arguments: pointers are multiples of 16 bytes, as torch allocates
    them, and whole numbers are marked as not to be specialised, or are multiples of 16 always.
    """

    def __init__(self, function: Any, *, warps: int = 4, stages: int = 3, **constants: Constant) -> None:
        self._function = function
        self._options: dict[str, Any] = {"num_warps": warps, "num_stages": stages}
        self._constants = constants
        self._in_order = tuple(constants[name] for name in function.arg_names if name in constants)
        self._compiled: dict[tuple[object, ...], Any] = {}

    def __call__(self, grid: tuple[int, int, int], *arguments: Any) -> None:
        """A whole number or None each, or a tensor; they come before the constants."""
        if INTERPRETED:
            self._function[grid](*arguments, **self._constants)
            return
        kinds = [argument.dtype if isinstance(argument, Tensor) else type(argument) for argument in arguments]
        which = (torch.cuda.current_device(), *kinds)
        compiled = self._compiled.get(which)
        if compiled is None:
            self._compiled[which] = self._function[grid](*arguments, **self._constants, **self._options)
        else:
            compiled[grid](*arguments, *self._in_order)


@cache
def kernel(function: Any, *, warps: int = 4, stages: int = 3, **constants: Constant) -> Kernel:
    """One for each set of constants."""
    return Kernel(function, warps=warps, stages=stages, **constants)
