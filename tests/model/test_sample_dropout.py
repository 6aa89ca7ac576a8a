"""What is dropped of a sample depends on the sample and the epoch alone."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from ditr.model.fusion import BatchFeatures
from ditr.model.point_features import PointFeatures
from ditr.model.sample_dropout import SampleDropout, SampleSequential
from ditr.model.sparse import Voxels
from ditr.seeds import derive_seed

NONE = PointFeatures(
    tokens=torch.zeros(0, 1), rows=torch.zeros(0, 1).long(), weights=torch.zeros(0, 1), valid=torch.zeros(0).bool()
)


def features(sizes: tuple[int, ...], *, epoch: int = 0, first: int = 0) -> BatchFeatures:
    seeds = tuple(derive_seed(0, "sample", epoch, f"frame{first + index}") for index in range(len(sizes)))
    in_space = Voxels(tensor=cast(Any, None), voxel_of_point=cast(Any, None), sizes=sizes)
    return BatchFeatures(points=NONE, in_space=in_space, seeds=seeds)


def dropped(sizes: tuple[int, ...], **which: int) -> Tensor:
    """Of two layers, one after the other."""
    read, layer = features(sizes, **which), SampleDropout(0.25).train()
    ones = torch.ones(sum(sizes), 40)
    return torch.stack([layer(ones, read), layer(ones, read)])


def test_a_sample_loses_the_same_whatever_is_in_its_batch() -> None:
    whole = dropped((30, 500, 20))
    assert torch.equal(dropped((500, 20), first=1), whole[:, 30:])
    assert torch.equal(dropped((30,)), whole[:, :30])
    assert not torch.equal(dropped((30,), epoch=1), whole[:, :30])
    assert not torch.equal(whole[0], whole[1]), "each layer draws its own"


def test_what_is_left_has_the_sum_of_what_was() -> None:
    out = dropped((3000,))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert out.mean() == pytest.approx(1, abs=0.01)


def test_nothing_is_dropped_in_evaluation_or_of_a_probability_of_0() -> None:
    x = torch.randn(5, 3)
    layers = SampleSequential(nn.ReLU(), SampleDropout(0.5)).eval()
    assert torch.equal(layers(x), x.relu())
    assert torch.equal(SampleDropout(0.0).train()(x, None), x)
    assert not SampleDropout(1.0).train()(x, features((5,))).any()
