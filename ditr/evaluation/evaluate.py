"""Evaluate a model on frames, and with a row of facts about each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ditr.data.batch import Batch
from ditr.data.frame_view import FrameView, MapColours
from ditr.data.samples import SampleSet
from ditr.evaluation.infer import Inferred, infer
from ditr.evaluation.instance_ap import AP_THRESHOLDS, ESAM_THRESHOLDS, Scores, scores
from ditr.evaluation.match_table import MatchTable
from ditr.evaluation.scorebook import Row, Scorebook
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
    book = Scorebook(samples, spec=spec, keep=keep, facts=facts)
    memory = memory_meter(device)
    entered: Future[None] | None = None
    done = 0

    def count_on() -> None:
        progress("evaluate", done, len(samples))

    inferring = infer(
        model,
        samples,
        spec=spec,
        device=device,
        encode=encode,
        workers=workers,
        batch_size=batch_size,
        precision=precision,
        before_each=count_on,
    )
    with watching(memory, model, every_s=1.0), closing(inferring), ThreadPoolExecutor(max_workers=1) as beside:
        for inferred in inferring:
            read = inferred.read.samples
            kept = {row: book.coloured(sample) for row, sample in enumerate(read) if book.keeps(done + row)}
            if entered is not None:
                entered.result()
            entered = beside.submit(_enter, book, inferred, kept)  # beside the work on the next batch
            done += len(read)
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


def _enter(book: Scorebook, inferred: Inferred, kept: dict[int, MapColours | None]) -> None:
    for row, (sample, found, reported) in enumerate(
        zip(inferred.batch, inferred.found, inferred.reported, strict=True)
    ):
        book.enter(sample, found, reported=reported, features=kept.get(row))


def _means(rows: list[Row]) -> dict[str, float]:
    """Mean of every number of the rows over the frames that have it; the time is reported by its median instead."""
    names = dict.fromkeys(name for row in rows for name in row if name not in _NOT_AVERAGED)
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {name: float(np.mean(numbers)) for name, numbers in values.items() if numbers}
