"""One update; that it waits for nothing shows on a GPU alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from ditr.data.batch import Batch
from ditr.data.samples import SampleSet
from ditr.model.precision import LOSS_SCALE
from ditr.model.prefetch import Ready
from ditr.spec.models import LossSpec, Precision
from ditr.training.criterion import Criterion
from ditr.training.step import StepNumbers, train_step
from tests.training.test_fit import TinyModel, tiny_model


def step(batch: Batch, precision: Precision) -> tuple[TinyModel, StepNumbers]:
    model = tiny_model()
    numbers = train_step(
        model,
        Ready(batch=batch, voxels=None),
        criterion=Criterion(LossSpec()),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        clip=10.0,
        precision=precision,
    )
    return model, numbers


def test_the_scale_of_the_loss_shows_in_no_number(
    make_samples: Callable[..., SampleSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ditr.training.step.computing_in", lambda precision, device: nullcontext())
    samples = make_samples(2)
    batch = Batch(samples=(samples[0], samples[1]))
    scaled: list[Tensor] = []
    backward = Tensor.backward
    monkeypatch.setattr(Tensor, "backward", lambda loss: (scaled.append(loss.detach()), backward(loss)))
    (plain, numbers), (half, half_numbers) = step(batch, "float32"), step(batch, "float16")
    assert scaled[1] == LOSS_SCALE * scaled[0]
    assert half_numbers.loss == numbers.loss
    assert half_numbers.grad_norm == numbers.grad_norm
    for one, other in zip(plain.parameters(), half.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)  # a scale by a power of two loses no digit
    assert not numbers.loss.requires_grad
