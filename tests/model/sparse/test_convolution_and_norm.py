"""What both engines compute and differentiate, against dense torch in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ditr.errors import Code, DitrError
from ditr.model.sparse import Voxels
from ditr.spec.models import Engine
from tests.reference.clouds import batch_of, level_of, voxels_of
from tests.reference.convolved import Case, Found, Inputs, of_dense, of_engine

TOLERANCE = 2e-6
"""Of the largest number of a tensor: float32 against float64."""
KERNELS = (
    Case(offsets=27, channels=(17, 33)),
    Case(offsets=27, channels=(33, 24), stride=2, onto=2),
    Case(offsets=8, channels=(5, 48), onto=2),
    Case(offsets=8, channels=(48, 3), stride=4, onto=2),
    Case(offsets=1, channels=(24, 17)),
    Case(offsets=125, channels=(3, 33)),
)
AFTER = [
    {"training": training, "shortcut": shortcut, "relu": relu}
    for training in (True, False)
    for shortcut, relu in ((False, True), (True, True), (True, False), (False, False))
]
CASES = [replace(kernel, **after) for kernel in KERNELS for after in AFTER[:2] + AFTER[5:6]]
CASES += [replace(KERNELS[2], **after) for after in AFTER[2:5] + AFTER[6:]]


def assert_same(found: Found, expected: Found) -> None:
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        scale = float(wanted.abs().max())
        deviation = float((found[name] - wanted).abs().max())
        assert deviation <= TOLERANCE * scale, f"{name}: {deviation / scale:.1e} of its largest"


def check(case: Case, engines: Sequence[Voxels]) -> None:
    """Of the same batch by one engine or several."""
    expected: Found | None = None
    for voxels in engines:
        at, onto = level_of(voxels, stride=case.stride), level_of(voxels, stride=case.onto)
        inputs = Inputs.of(case, rows=len(at), rows_out=len(onto))
        expected = expected or of_dense(inputs, at=at, onto=onto)
        assert_same(of_engine(inputs, at=at, onto=onto), expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_gradients_and_running_statistics(case: Case, by_engine: dict[Engine, Voxels]) -> None:
    check(case, list(by_engine.values()))


@pytest.mark.parametrize(("count", "coarser"), [(127, 63), (128, 64), (129, 65)])
def test_as_many_voxels_as_a_tile_has_rows_or_one_more_or_fewer(count: int, coarser: int) -> None:
    voxels = voxels_of(batch_of([in_cells(count, coarser)]), engine="triton")
    assert (len(level_of(voxels, stride=1)), len(level_of(voxels, stride=2))) == (count, coarser)
    for kernel in (KERNELS[0], replace(KERNELS[3], stride=2, onto=1), KERNELS[5]):
        check(replace(kernel, channels=(3, 5)), [voxels])
    assert len(level_of(voxels, stride=16)) == 1
    for stride, onto in ((8, 16), (16, 16), (16, 8)):
        offsets = 8 if stride != onto else 27
        check(Case(offsets=offsets, channels=(3, 5), stride=stride, onto=onto, training=onto == 8), [voxels])


def in_cells(count: int, coarser: int) -> Tensor:
    """(count, 3) voxels in so many of twice the stride, about two in each."""
    cells = 2 * torch.tensor([(number % 5, number // 5 % 5, number // 25) for number in range(coarser)])
    children = [cells + torch.tensor(child) for child in ((0, 0, 0), (1, 0, 1), (0, 1, 0))]
    return torch.cat(children)[:count]


def test_one_voxel_in_evaluation(one_voxel: dict[Engine, Voxels]) -> None:
    for kernel in (KERNELS[0], KERNELS[2], KERNELS[5]):
        check(replace(kernel, training=False), list(one_voxel.values()))


@pytest.mark.parametrize("engine", ["triton", "minkowski"])
def test_one_voxel_in_training_is_refused(engine: Engine, one_voxel: dict[Engine, Voxels]) -> None:
    at = one_voxel[engine].tensor.voxels
    inputs = Inputs.of(Case(offsets=8, channels=(3, 5), onto=2), rows=1, rows_out=1)
    with pytest.raises(DitrError, match="only one voxel of stride 2, and batch normalisation needs two") as caught:
        of_engine(inputs, at=at, onto=at.coarser)
    assert (caught.value.code, caught.value.where) == (Code.DATASET, "schedule.batch_size")
    assert "more frames" in caught.value.fix
