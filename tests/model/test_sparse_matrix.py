"""Products and gradients against dense matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ditr.model.sparse_matrix import SparseMatrix, from_entries


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 7), entries=st.integers(0, 40), seed=st.integers(0, 2**16))
def test_product_and_gradient_are_those_of_the_dense_matrix(height: int, width: int, entries: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(height, (entries,), generator=generator)
    columns = torch.randint(width, (entries,), generator=generator)
    values = torch.randn(entries, generator=generator)
    matrix = from_entries(rows, columns, values, height=height, width=width)
    dense = torch.zeros(height, width).index_put((rows, columns), values, accumulate=True)

    tokens = torch.randn(width, 5, generator=generator, requires_grad=True)
    wanted = torch.randn(height, 5, generator=generator)
    torch.testing.assert_close(matrix @ tokens, dense @ tokens)
    (matrix @ tokens * wanted).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(tokens.grad, dense.T @ wanted)
    assert len(matrix.values) == len({*zip(rows.tolist(), columns.tolist(), strict=True)}), "same places are one entry"
    torch.testing.assert_close(matrix.transposed @ wanted, dense.T @ wanted)


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_same_bits_with_any_number_of_threads(deterministic: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randint(size, (60_000,), generator=generator) for size in (9_000, 700))
    values = torch.rand(60_000, generator=generator)
    tokens = torch.randn(700, 32, generator=generator)
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(deterministic)
    found = []
    try:
        for count in (1, 2, 2, 2):
            torch.set_num_threads(count)
            matrix: SparseMatrix = from_entries(rows, columns, values, height=9_000, width=700)
            leaf = tokens.clone().requires_grad_()
            out = matrix @ leaf
            out.square().sum().backward()
            found.append((matrix.values, out.detach(), leaf.grad))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True) if a is not None and b is not None)
