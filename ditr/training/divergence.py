"""A step whose loss or gradient is no number: what it read and said is kept, to be looked at and made again."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from ditr.data.batch import Sample
from ditr.data.loading import batch_indices
from ditr.data.samples import SampleSet
from ditr.errors import Code, DitrError
from ditr.files import replacing, write_json

BATCH, STEP = "batch.safetensors", "step.json"


class DivergedError(DitrError):
    """The first step of a training whose loss or gradient is not finite, or after which the model's output is not."""

    def __init__(self, what: str, *, number: int, frames: tuple[str, ...], metrics: Mapping[str, float]) -> None:
        super().__init__(
            f"the training diverged in step {number}: {what}",
            code=Code.RUN,
            where=", ".join(frames),
            fix="look at these frames with `ditr data show` and lower schedule.learning_rate "
            "or schedule.grad_clip_norm; no step was skipped",
        )
        self.number = number
        """Of the optimizer's steps over the whole training, from 1."""
        self.frames = frames
        self.metrics = metrics


def diverged_after(number: int, *, samples: SampleSet, batch_size: int, where: str) -> DivergedError:
    """Of a step whose own loss and gradient were finite: with the weights it left the output for ``where`` is not."""
    _, indices = _batch(number, samples=samples, batch_size=batch_size)
    what = f"with the weights after it the model's output is not a number for {where}"
    return DivergedError(what, number=number, frames=tuple(samples.frames.ids[at] for at in indices), metrics={})


def save_step(error: DivergedError, folder: Path, *, samples: SampleSet, batch_size: int) -> None:
    """Writes ``BATCH``, every tensor of the step's samples by ``<frame>.<name>``, and ``STEP``, what the step said.

    The samples are read again: they are the same, of the same epoch and frames.
    """
    epoch, indices = _batch(error.number, samples=samples, batch_size=batch_size)
    samples.set_epoch(epoch)
    read = [samples[index] for index in indices]
    assert tuple(sample.frame_id for sample in read) == error.frames, "batches depend on seed and epoch alone"
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / BATCH) as beside:
        beside.write_bytes(save(dict(_tensors(read))))
    metrics = {name: value if math.isfinite(value) else str(value) for name, value in error.metrics.items()}
    write_json(
        folder / STEP,
        {
            "epoch": epoch + 1,
            "step": error.number,
            "frames": list(error.frames),
            "sample_seeds": [sample.seed for sample in read],
            "metrics": metrics,
        },
    )


def _batch(number: int, *, samples: SampleSet, batch_size: int) -> tuple[int, list[int]]:
    """Of the optimizer's step ``number``: epochs before it, and the indices of its samples."""
    epoch, at = divmod(number - 1, math.ceil(len(samples) / batch_size))
    return epoch, batch_indices(samples, epoch=epoch, batch_size=batch_size, shuffle=True)[at]


def _tensors(samples: list[Sample]) -> Iterator[tuple[str, Tensor]]:
    for sample in samples:
        for holder, prefix in ((sample, sample.frame_id), (sample.targets, f"{sample.frame_id}.targets")):
            for field in dataclasses.fields(holder):
                value = getattr(holder, field.name)
                if isinstance(value, Tensor):
                    yield f"{prefix}.{field.name}", value.contiguous().clone()
