"""Evaluate a model on frames, and with a row of facts about each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ditr.data.batch import Batch
from ditr.data.frame_view import FrameView, MapColours
from ditr.data.loading import batches
from ditr.data.samples import SampleSet
from ditr.evaluation.instance_ap import AP_THRESHOLDS, ESAM_THRESHOLDS, Scores, scores
from ditr.evaluation.instances import Instances
from ditr.evaluation.match_table import MatchTable
from ditr.evaluation.postprocess import instances
from ditr.evaluation.scorebook import Row, Scorebook
from ditr.model.moments import moment, ms_between
from ditr.model.output import ModelOutput
from ditr.model.precision import computing_in
from ditr.model.prefetch import Prefetcher, engine_of
from ditr.model.reproducible import reproducible
from ditr.model.statistics import floats_of_samples
from ditr.progress import Progress, silent
from ditr.resources import memory_meter, watching
from ditr.spec.models import EvaluationSpec, Precision

_NOT_AVERAGED = ("frame_id", "scene", "infer_ms")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model is worth on a set of frames, and how that came about."""

    scores: Scores
    table: MatchTable
    frames: tuple[Row, ...]
    """One a frame, in the order of the samples."""
    instances: tuple[Row, ...]
    """One a ground-truth instance, by ``INSTANCES_SCHEMA``; none unless asked for."""
    statistics: dict[str, float]
    """Mean over frames of every number in the rows: counts, coverage, what the model reports."""
    infer_ms: float
    """Median over frames of a frame's share of its batch's time: from the copy to the device over 2D features if
    online, forward pass and post-processing to the instances on the host, data reading apart; NaN without frames."""
    peak_mem_mb: float
    """Most MiB in use meanwhile, the model and what else was there before included."""
    memory_of: str
    """Whose memory that is, in words."""
    views: tuple[FrameView, ...]
    """Of the frames that are kept for pictures."""


def evaluate(
    model: nn.Module,
    samples: SampleSet,
    *,
    spec: EvaluationSpec,
    device: torch.device,
    encode: Callable[[Batch], Batch],
    workers: int,
    batch_size: int = 1,
    precision: Precision = "float32",
    progress: Progress = silent,
    keep: int = 0,
    facts: bool = False,
    esam_compat: bool = False,
) -> Evaluation:
    """Score ``model`` on all ``samples`` against their own targets, reading each once.

    The frames of a batch know nothing of each other: how many there are changes no number by more than rounding.
    ``keep`` frames, spread evenly, are kept for pictures; ``facts`` about all instances are kept or not. ``samples``
    must not be augmented. ``encode`` gets each batch on the device and gives it its 2D feature maps if they are made
    online. With ``esam_compat`` AP is the mean over ESAM's nine thresholds; for its ground truth the samples need to be
    made so too. The model is in evaluation mode meanwhile and as it was afterwards.
    """
    assert not samples.augmented, "augmented samples are no test"
    book = Scorebook(samples, spec=spec, keep=keep, facts=facts)
    memory = memory_meter(device)
    prefetcher = Prefetcher(device, encode=encode, model=model)
    feed = batches(samples, batch_size=batch_size, shuffle=False, workers=workers, pinned=device.type == "cuda")
    entered: Future[None] | None = None
    done = 0
    with (
        closing(feed),
        _evaluating(model),
        reproducible(device, engine=engine_of(model)),
        watching(memory, model, every_s=1.0),
        ThreadPoolExecutor(max_workers=1) as beside,
    ):
        for batch in feed:
            progress("evaluate", done, len(samples))
            inferred = _infer(model, batch, prefetcher=prefetcher, spec=spec, precision=precision, device=device)
            kept = {
                row: book.coloured(inferred.batch.samples[row]) for row in range(len(batch)) if book.keeps(done + row)
            }
            if entered is not None:
                entered.result()
            entered = beside.submit(_enter, book, batch, inferred, kept)  # beside the work on the next batch
            done += len(batch)
        if entered is not None:
            entered.result()
    progress("evaluate", len(samples), len(samples))
    return Evaluation(
        scores=scores(book.table, thresholds=ESAM_THRESHOLDS if esam_compat else AP_THRESHOLDS),
        table=book.table,
        frames=tuple(book.frames),
        instances=tuple(book.instances),
        statistics=_means(book.frames),
        infer_ms=float(np.median([row["infer_ms"] for row in book.frames])) if book.frames else float("nan"),
        peak_mem_mb=memory.peak_mb(),
        memory_of=memory.of,
        views=tuple(book.views),
    )


@dataclass(frozen=True, kw_only=True)
class _Inferred:
    batch: Batch
    """As the model read it, on the device."""
    found: list[Instances]
    reported: tuple[dict[str, float], ...]
    """Of each frame by the model, and its share of the time."""


def _infer(
    model: nn.Module,
    batch: Batch,
    *,
    prefetcher: Prefetcher,
    spec: EvaluationSpec,
    precision: Precision,
    device: torch.device,
) -> _Inferred:
    """Waits for the device once, for the instances."""
    began = moment(device)
    ready = prefetcher.ready(batch)
    with computing_in(precision, device=device):
        output: ModelOutput = model(*ready.arguments)
    found = instances(output, ready.batch, spec=spec)
    infer_ms = ms_between(began, moment(device)) / len(batch)
    reported = (one | {"infer_ms": infer_ms} for one in floats_of_samples(output.statistics, samples=len(batch)))
    return _Inferred(batch=ready.batch, found=found, reported=tuple(reported))


def _enter(book: Scorebook, batch: Batch, inferred: _Inferred, kept: dict[int, MapColours | None]) -> None:
    for row, (sample, found, reported) in enumerate(zip(batch, inferred.found, inferred.reported, strict=True)):
        book.enter(sample, found, reported=reported, features=kept.get(row))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _means(rows: list[Row]) -> dict[str, float]:
    """Mean of every number of the rows over the frames that have it; the time is reported by its median instead."""
    names = dict.fromkeys(name for row in rows for name in row if name not in _NOT_AVERAGED)
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {name: float(np.mean(numbers)) for name, numbers in values.items() if numbers}
