"""A training whose numbers make no sense any more: which step it was, what it read, and that it comes to it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ditr.data.batch import Batch
from ditr.data.samples import SampleSet
from ditr.model.output import ModelOutput
from ditr.training.divergence import BATCH, STEP, DivergedError, save_step
from tests.training.test_fit import TinyModel, Training

BAD_STEP = 5
MakeSamples = Callable[..., SampleSet]


class Exploding(TinyModel):
    """Its logits are ``factor`` times too large in one step; keeps what it read."""

    def __init__(self, *, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.read: list[Batch] = []

    def forward(self, batch: Batch) -> ModelOutput:
        self.read.append(batch)
        output = super().forward(batch)
        factor = self.factor if len(self.read) == BAD_STEP else 1.0
        return replace(output, semantic_logits=output.semantic_logits * factor)


def diverged(run: Training) -> DivergedError:
    with pytest.raises(DivergedError) as caught:
        run.start()
    return caught.value


@pytest.mark.parametrize("factor", [float("nan"), 1e7])
def test_the_step_is_kept_as_the_model_read_it(tmp_path: Path, make_samples: MakeSamples, factor: float) -> None:
    run = Training(tmp_path, lambda: make_samples(5), model=lambda: Exploding(factor=factor))
    error = diverged(run)
    assert isinstance(run.model, Exploding)
    read = run.model.read[-1]
    assert (error.number, error.frames) == (BAD_STEP, read.frame_ids)
    assert error.what.startswith(f"the training diverged in step {BAD_STEP}: the loss is ")
    save_step(error, tmp_path / "diverged", samples=make_samples(5), batch_size=2)
    tensors = load_file(tmp_path / "diverged" / BATCH)
    for sample in read:
        assert torch.equal(tensors[f"{sample.frame_id}.xyz"], sample.xyz), "with the augmentation of its epoch"
        assert torch.equal(tensors[f"{sample.frame_id}.superpoints"], sample.superpoints)
        assert torch.equal(tensors[f"{sample.frame_id}.targets.ids"], sample.targets.ids)
    said = json.loads((tmp_path / "diverged" / STEP).read_text())
    assert (said["epoch"], said["step"], said["frames"]) == (2, BAD_STEP, list(read.frame_ids))
    assert said["sample_seeds"] == [sample.seed for sample in read]
    assert said["metrics"]["loss"] == "nan" or said["metrics"]["loss"] > 1e6


def test_a_large_loss_of_a_part_of_ones_own_is_no_divergence(tmp_path: Path, make_samples: MakeSamples) -> None:
    class Heavy(TinyModel):
        def forward(self, batch: Batch) -> ModelOutput:
            output = super().forward(batch)
            return replace(output, fusion_losses={"own_loss": self.classes.weight.square().sum() * 0 + 1e9})

    assert Training(tmp_path, lambda: make_samples(2), model=Heavy).start().finished
