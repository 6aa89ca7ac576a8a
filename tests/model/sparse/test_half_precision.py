"""Products in autocast's precision: what is rounded, and what is kept in float32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

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


@pytest.fixture(params=[torch.float16, torch.bfloat16], ids=str)
def half(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """As ``torch.autocast("cuda", dtype)`` sets it, which does nothing where there is no GPU."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", request.param)
    yield request.param
    torch.set_autocast_enabled("cuda", False)
    torch.set_autocast_dtype("cuda", before)


def deviations(found: Found, expected: Found) -> dict[str, float]:
    return {name: float((found[name] - one).abs().max() / one.abs().max()) for name, one in expected.items()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_products_are_rounded(case: Case, half: torch.dtype, by_engine: dict[Engine, Voxels]) -> None:
    voxels = by_engine["triton"]
    at, onto = level_of(voxels, stride=case.stride), level_of(voxels, stride=case.onto)
    inputs = Inputs.of(case, rows=len(at), rows_out=len(onto))
    found = of_engine(inputs, at=at, onto=onto)
    assert compute_dtype() == half
    types = {name: one.dtype for name, one in found.items() if one.is_floating_point()}
    assert types.pop("out") == half
    assert set(types.values()) == {torch.float32}
    step = torch.finfo(half).eps
    moved = deviations(found, of_dense(inputs, at=at, onto=onto))
    assert step / 16 < moved["out"] < 4 * step
    assert max(moved.values()) < 8 * step, moved

    def rounded(values: Tensor) -> Tensor:
        return values.to(half).double()

    of_at, of_onto = (dense.Places(torch.tensor(places(one)), one.stride) for one in (at, onto))
    sums = rounded(dense.convolve(rounded(inputs.values), rounded(inputs.kernel), at=of_at, onto=of_onto))
    inputs.norm(sums)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(found[name].double(), inputs.norm.get_buffer(name), rtol=step / 32, atol=step / 32)


def test_float32_without_autocast() -> None:
    assert compute_dtype() == torch.float32
