"""Batches made ready for the model; streams of a GPU are not to be had here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.memory import samples, small_model
from ditr.data.batch import Batch, as_it_is
from ditr.errors import Code, DitrError
from ditr.model.prefetch import Prefetcher
from ditr.model.sparse import Voxels

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batch() -> Batch:
    frames = samples(2, points=300, augmented=False)
    return Batch(samples=(frames[0], frames[1]))


def test_the_model_gets_what_was_encoded(batch: Batch) -> None:
    def encode(given: Batch) -> Batch:
        return Batch(samples=tuple(replace(sample, seed=7) for sample in given))

    ready = Prefetcher(CPU, encode=encode, model=small_model("minkowski")).ready(batch)
    assert [sample.seed for sample in ready.arguments[0]] == [7, 7]
    assert len(ready.arguments) == 1, "MinkowskiEngine's voxels are made by the model"


def test_an_error_of_encoding_comes_out_as_it_is(batch: Batch) -> None:
    def encode(given: Batch) -> Batch:
        raise DitrError("no map", code=Code.FEATURES, where=given.frame_ids[0], fix="none")

    with pytest.raises(DitrError, match="no map"):
        Prefetcher(CPU, encode=encode, model=small_model("minkowski")).ready(batch)


def test_voxels_made_ahead_are_those_that_the_model_makes(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("minkowski").eval()
    made: list[Voxels] = []

    def voxelise(given: Batch) -> Voxels:
        made.append(type(model).voxelise(model, given))
        return made[-1]

    alone = model(batch)
    monkeypatch.setattr(model, "engine", "triton")
    monkeypatch.setattr(model, "voxelise", voxelise)
    prefetcher = Prefetcher(CPU, encode=as_it_is, model=model)
    monkeypatch.setattr(model, "engine", "minkowski")
    ready = prefetcher.ready(batch)
    assert ready.arguments[1] is made[0]
    ahead = model(*ready.arguments)
    assert len(made) == 1, "once"
    assert torch.equal(ahead.semantic_logits, alone.semantic_logits)
