"""Launching a kernel without what Triton does anew at each call: it looks at every argument, which takes 40 us."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Kernels run in Python, on the CPU: for tests."""

Constant = int | bool | str


class Kernel:
    """A kernel with its constants, compiled for a device when it is first launched there.

    What Triton compiles holds for all later arguments: pointers are multiples of 16 bytes, as torch allocates them;
    whole numbers are marked as not to be specialised, or are multiples of 16; which arguments are None is in the name.
    """

    def __init__(self, function: Any, *, warps: int = 4, stages: int = 3, **constants: Constant) -> None:
        self._function = function
        self._options: dict[str, Any] = {"num_warps": warps, "num_stages": stages}
        self._constants = constants
        self._in_order = tuple(constants[name] for name in function.arg_names if name in constants)
        self._compiled: dict[tuple[int | None, ...], Any] = {}

    def __call__(self, grid: tuple[int, int, int], *arguments: Any) -> None:
        """A whole number or None each, or a tensor; they come before the constants."""
        if INTERPRETED:
            self._function[grid](*arguments, **self._constants)
            return
        device = torch.cuda.current_device()
        which = (device, *(place for place, argument in enumerate(arguments) if argument is None))
        compiled = self._compiled.get(which)
        if compiled is None:
            self._compiled[which] = self._function[grid](*arguments, **self._constants, **self._options)
        else:
            compiled[grid](*arguments, *self._in_order)


@cache
def kernel(function: Any, *, warps: int = 4, stages: int = 3, **constants: Constant) -> Kernel:
    """One for each set of constants."""
    return Kernel(function, warps=warps, stages=stages, **constants)
