"""How kernels are launched on a GPU, by a function that only notes what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ditr.model.sparse.triton import launch
from ditr.model.sparse.triton.launch import Kernel, kernel

GRID = (3, 1, 1)


class Function:
    """As Triton's: a launch compiles, and gives what launches without looking at the arguments."""

    arg_names = ("x", "y", "count", "SECOND", "FIRST")

    def __init__(self) -> None:
        self.compiled: list[tuple[Any, ...]] = []
        self.launched: list[tuple[int, tuple[Any, ...]]] = []

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., Any]:
        def compile_and_launch(*arguments: Any, **named: Any) -> Any:
            self.compiled.append((grid, arguments, named))
            number, launched = len(self.compiled), self.launched

            class Compiled:
                def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
                    return lambda *arguments: launched.append((number, (grid, *arguments)))

            return Compiled()

        return compile_and_launch


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The last is the one that is asked for."""
    used = [0]
    monkeypatch.setattr(launch, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: used[-1])
    return used


@pytest.mark.usefixtures("devices")
def test_compiled_once_and_then_given_constants_in_the_order_of_the_function() -> None:
    function = Function()
    one = Kernel(function, warps=8, stages=2, FIRST=1, SECOND=2)
    x = torch.zeros(2)
    one(GRID, x, None, 5)
    assert function.compiled == [(GRID, (x, None, 5), {"FIRST": 1, "SECOND": 2, "num_warps": 8, "num_stages": 2})]
    assert function.launched == []
    other = torch.zeros(4)
    one((7, 2, 1), other, None, 6)
    assert len(function.compiled) == 1
    assert function.launched == [(1, ((7, 2, 1), other, None, 6, 2, 1))]


def test_another_type_another_device_or_a_missing_tensor_is_compiled_anew(devices: list[int]) -> None:
    function = Function()
    one = Kernel(function, FIRST=1, SECOND=2)
    full, half = torch.zeros(2), torch.zeros(2, dtype=torch.float16)
    for count, arguments in enumerate([(full, full), (half, full), (full, half), (full, None)], start=1):
        one(GRID, *arguments, 1)
        assert len(function.compiled) == count
    devices.append(1)
    one(GRID, full, full, 1)
    assert len(function.compiled) == 5
    devices.append(0)
    one(GRID, half, full, 1)
    one(GRID, full, None, 1)
    assert [number for number, _ in function.launched] == [2, 4]


def test_one_kernel_for_each_set_of_constants() -> None:
    function = Function()
    assert kernel(function, FIRST=1, SECOND=2) is kernel(function, FIRST=1, SECOND=2)
    assert kernel(function, FIRST=1, SECOND=2) is not kernel(function, FIRST=1, SECOND=3)
    assert kernel(function, FIRST=1, SECOND=2) is not kernel(function, warps=8, FIRST=1, SECOND=2)
