"""Products in autocast's precision: what is rounded, and what is kept in float32.

Numbers are those of float16: Triton's interpreter multiplies the bits of bfloat16 as if they were whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from ditr.model.sparse import Voxels
from ditr.model.sparse.triton.convolution import compute_dtype
from ditr.spec.models import Engine
from tests.reference import dense
from tests.reference.clouds import level_of, places
from tests.reference.convolved import Case, Found, Inputs, of_dense, of_engine

CASES = (
    Case(offsets=27, channels=(17, 33), shortcut=True),
    Case(offsets=8, channels=(5, 48), onto=2, relu=False),
    Case(offsets=1, channels=(24, 17)),
    Case(offsets=125, channels=(3, 33)),
)


@contextmanager
def autocast(dtype: torch.dtype) -> Iterator[None]:
    """As ``torch.autocast("cuda", dtype)`` sets it, which does nothing where there is no GPU."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_what_comes_out_is_of_that_type_and_gradients_are_float32(
    dtype: torch.dtype, by_engine: dict[Engine, Voxels]
) -> None:
    at = by_engine["triton"].tensor.voxels
    inputs = Inputs.of(Case(offsets=1, channels=(3, 5), shortcut=True), rows=len(at), rows_out=len(at))
    assert compute_dtype() == torch.float32
    with autocast(dtype):
        assert compute_dtype() == dtype
        found = of_engine(inputs, at=at, onto=at)
    types = {name: one.dtype for name, one in found.items() if one.is_floating_point()}
    assert types.pop("out") == dtype
    assert set(types.values()) == {torch.float32}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_products_are_rounded(case: Case, by_engine: dict[Engine, Voxels]) -> None:
    voxels = by_engine["triton"]
    at, onto = level_of(voxels, stride=case.stride), level_of(voxels, stride=case.onto)
    inputs = Inputs.of(case, rows=len(at), rows_out=len(onto))
    with autocast(torch.float16):
        found = of_engine(inputs, at=at, onto=onto)
    step = torch.finfo(torch.float16).eps
    moved = deviations(found, of_dense(inputs, at=at, onto=onto))
    assert step / 16 < moved["out"] < 4 * step
    assert max(moved.values()) < 8 * step, moved
    for name in ("kernel", "gamma", "beta"):
        gradient = found[f"gradient of {name}"]
        assert not torch.equal(gradient, gradient.half().float()), f"{name}'s gradient was rounded"

    # The running statistics are those of the rounded sums, to float32's precision.
    of_at, of_onto = (dense.Places(torch.tensor(places(one)), one.stride) for one in (at, onto))
    sums = dense.convolve(inputs.values.half().double(), inputs.kernel.half().double(), at=of_at, onto=of_onto)
    inputs.norm(sums.half().double())
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(found[name].double(), inputs.norm.get_buffer(name), rtol=step / 32, atol=step / 32)


def deviations(found: Found, expected: Found) -> dict[str, float]:
    """Of the largest number of each."""
    return {name: float((found[name] - one).abs().max() / one.abs().max()) for name, one in expected.items()}
