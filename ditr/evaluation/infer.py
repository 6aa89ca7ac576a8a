"""The one way from samples to instances: what scores a model and what shows its instances both go it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ditr.data.batch import Batch
from ditr.data.loading import batches
from ditr.data.samples import SampleSet
from ditr.evaluation.instances import Instances
from ditr.evaluation.postprocess import instances
from ditr.model.moments import moment, ms_between
from ditr.model.output import ModelOutput
from ditr.model.precision import computing_in
from ditr.model.prefetch import Prefetcher, engine_of
from ditr.model.reproducible import reproducible
from ditr.model.statistics import floats_of_samples
from ditr.spec.models import EvaluationSpec, Precision


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """A batch, and what the model says of it."""

    batch: Batch
    """On the host."""
    read: Batch
    """As the model read it, on the device, with its 2D feature maps."""
    found: list[Instances]
    """Of each frame."""
    reported: tuple[dict[str, float], ...]
    """Of each frame by the model; ``infer_ms`` is its share of the batch's time, from the copy to the device over 2D
    features if online, forward pass and post-processing to the instances on the host."""


def infer(
    model: nn.Module,
    samples: SampleSet,
    *,
    spec: EvaluationSpec,
    device: torch.device,
    encode: Callable[[Batch], Batch],
    workers: int,
    batch_size: int = 1,
    precision: Precision = "float32",
    before_each: Callable[[], None] = lambda: None,
    part: range | None = None,
) -> Generator[Inferred]:
    """Batch by batch, in the order of the samples; close it where it is not read to its end.

    The model is in evaluation mode meanwhile, without gradients, and as it was afterwards.

    Parameters
    ----------
    samples: not augmented.
    encode: gives a batch on the device its 2D feature maps, if they are made online.
    before_each: called before each batch is worked on.
    part: numbers of the batches, one after the other, that are worked on; None all.
    """
    assert not samples.augmented, "augmented samples are no test"
    prefetcher = Prefetcher(device, encode=encode, model=model)
    feed = batches(
        samples,
        batch_size=batch_size,
        shuffle=False,
        workers=workers,
        first_batch=0 if part is None else part.start,
        end_batch=None if part is None else part.stop,
        pinned=device.type == "cuda",
    )
    with closing(feed), _evaluating(model), reproducible(device, engine=engine_of(model)):
        for batch in feed:
            before_each()
            yield _infer(model, batch, prefetcher=prefetcher, spec=spec, precision=precision, device=device)


def _infer(
    model: nn.Module,
    batch: Batch,
    *,
    prefetcher: Prefetcher,
    spec: EvaluationSpec,
    precision: Precision,
    device: torch.device,
) -> Inferred:
    """Waits for the device once, for the instances."""
    began = moment(device)
    ready = prefetcher.ready(batch)
    with computing_in(precision, device=device):
        output: ModelOutput = model(*ready.arguments)
    found = instances(output, ready.batch, spec=spec)
    infer_ms = ms_between(began, moment(device)) / len(batch)
    reported = (one | {"infer_ms": infer_ms} for one in floats_of_samples(output.statistics, samples=len(batch)))
    return Inferred(batch=batch, read=ready.batch, found=found, reported=tuple(reported))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
