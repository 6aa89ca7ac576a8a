"""Products and gradients against dense matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ditr.model.point_features import PointFeatures
from ditr.model.segments import Segments


def random_points(count: int, *, tokens: int, reads: int, generator: torch.Generator) -> PointFeatures:
    return PointFeatures(
        tokens=torch.randn(tokens, 5, generator=generator),
        rows=torch.randint(tokens, (count, reads), generator=generator),
        weights=torch.randn(count, reads, generator=generator),
        valid=torch.ones(count, dtype=torch.bool),
    )


def dense(points: PointFeatures) -> Tensor:
    """(N, T)"""
    count, reads = points.rows.shape
    rows = torch.arange(count).repeat_interleave(reads)
    zeros = torch.zeros(count, len(points.tokens))
    return zeros.index_put((rows, points.rows.flatten()), points.weights.flatten(), accumulate=True)


@settings(max_examples=30, deadline=None)
@given(
    groups=st.integers(1, 9),
    tokens=st.integers(1, 7),
    count=st.integers(1, 40),
    reads=st.sampled_from([1, 4]),
    seed=st.integers(0, 2**16),
)
def test_product_and_gradient_are_those_of_the_dense_matrix(
    groups: int, tokens: int, count: int, reads: int, seed: int
) -> None:
    """Of points, and of groups of them, some of which are empty."""
    generator = torch.Generator().manual_seed(seed)
    points = random_points(count, tokens=tokens, reads=reads, generator=generator)
    of_row = torch.randint(groups, (count,), generator=generator)
    shares = torch.rand(count, generator=generator) * (torch.rand(count, generator=generator) > 0.3)
    member = torch.nn.functional.one_hot(of_row, groups).T.float()
    for matrix, direct in (
        (points.matrix(), dense(points)),
        (points.matrix(Segments(of_row=of_row, count=groups), shares=shares), (member * shares) @ dense(points)),
    ):
        values = points.tokens.clone().requires_grad_()
        wanted = torch.randn(len(direct), 5, generator=generator)
        torch.testing.assert_close(matrix @ values, direct @ values)
        (matrix @ values * wanted).sum().backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(values.grad, direct.T @ wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(half: torch.dtype) -> None:
    points = random_points(400, tokens=3, reads=4, generator=torch.Generator().manual_seed(0))
    together = points.matrix(Segments(of_row=torch.zeros(400, dtype=torch.int64), count=1))
    values = points.tokens.to(half).requires_grad_()
    out = together @ values
    out.backward(torch.ones_like(out))
    direct = dense(points).sum(dim=0, keepdim=True)
    assert values.grad is not None
    assert (out.dtype, values.grad.dtype) == (half, half)
    assert torch.equal(out, (together @ values.detach().float()).to(half))
    torch.testing.assert_close(values.grad, direct.T.expand(-1, 5).to(half))


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_same_bits_with_any_number_of_threads(deterministic: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    points = random_points(15_000, tokens=700, reads=4, generator=generator)
    of_row = torch.randint(9_000, (15_000,), generator=generator)
    tokens = torch.randn(700, 32, generator=generator)
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(deterministic)
    found = []
    try:
        for count in (1, 2, 2, 2):
            torch.set_num_threads(count)
            leaf = tokens.clone().requires_grad_()
            out = points.matrix(Segments(of_row=of_row, count=9_000), shares=points.weights[:, 0]) @ leaf
            out.square().sum().backward()
            found.append((out.detach(), leaf.grad))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True) if a is not None and b is not None)
