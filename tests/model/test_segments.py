"""Sums by segment against loops in float64, and that neither values nor gradients depend on threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ditr.model.segments import Segments

LOOPS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda rows: rows.sum(dim=0),
    "mean": lambda rows: rows.mean(dim=0),
    "maximum": lambda rows: rows.amax(dim=0),
}


@pytest.mark.parametrize("name", LOOPS)
def test_of_a_loop_over_segments_with_its_gradient(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    of_row = torch.cat([torch.arange(9), torch.randint(8, (60,), generator=rng)])  # the last segment has one row
    of_row = of_row[torch.randperm(len(of_row), generator=rng)]
    values = torch.randn(69, 5, generator=rng, dtype=torch.float64).round(decimals=1).requires_grad_()
    weights = torch.randn(9, 5, generator=rng, dtype=torch.float64)
    found = getattr(Segments(of_row=of_row, count=9), name)(values)
    wanted = torch.stack([LOOPS[name](values[of_row == segment]) for segment in range(9)])
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad((out * weights).sum(), values)[0] for out in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def test_spread_gives_each_row_its_segments_and_sums_the_gradient() -> None:
    of_row = torch.tensor([2, 0, 2, 1])
    values = torch.arange(6.0).reshape(3, 2).requires_grad_()
    out = Segments(of_row=of_row, count=3).spread(values)
    assert out.tolist() == [[4, 5], [0, 1], [4, 5], [2, 3]]
    (out * torch.tensor([[1.0], [10.0], [100.0], [1000.0]])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[10, 10], [1000, 1000], [101, 101]]


def test_equal_rows_share_the_gradient_of_a_maximum_even_zeros() -> None:
    values = torch.tensor([[-3.0, 0.0], [-1.0, 0.0], [-5.0, -2.0]], requires_grad=True)
    out = Segments(of_row=torch.tensor([1, 1, 0]), count=2).maximum(values)
    assert out.tolist() == [[-5.0, -2.0], [-1.0, 0.0]]
    (-out).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[0.0, -0.5], [-1.0, -0.5], [-1.0, -1.0]]


def test_sums_are_in_the_order_of_the_rows_on_any_number_of_threads() -> None:
    rng = torch.Generator().manual_seed(0)
    of_row = torch.cat([torch.arange(50), torch.randint(50, (20_000,), generator=rng)])
    values = torch.randn(len(of_row), 16, generator=rng)
    in_order = torch.zeros(50, 16)
    for segment, row in zip(of_row.tolist(), values, strict=True):
        in_order[segment] += row
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(Segments(of_row=of_row, count=50).sum(values), in_order)
    finally:
        torch.set_num_threads(before)
