"""Evaluate a model on frames, and with a row of facts about each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ditr.data.batch import Batch
from ditr.data.frame_view import FrameView
from ditr.data.samples import SampleSet
from ditr.evaluation.infer import Inferred, infer
from ditr.evaluation.instance_ap import AP_THRESHOLDS, ESAM_THRESHOLDS, Scores, scores
from ditr.evaluation.match_table import MatchTable
from ditr.evaluation.scorebook import Row, Scorebook, joined, views_of
from ditr.progress import Progress, silent
from ditr.ranks import ALONE, Ranks
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
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Score ``model`` on all ``samples`` against their own targets, reading each once.

    The frames of a batch know nothing of each other: how many there are changes no number by more than rounding.
    ``keep`` frames, spread evenly, are kept for pictures; ``facts`` about all instances are kept or not. ``samples``
    must not be augmented. ``encode`` gets each batch on the device and gives it its 2D feature maps if they are made
    online. With ``esam_compat`` AP is the mean over ESAM's nine thresholds; for its ground truth the samples need to be
    made so too. The model is in evaluation mode meanwhile and as it was afterwards. Ranks share the batches, and all of
    them return the same: what one would, but for times and memory; each calls ``progress`` as often as the others.
    """
    batches = -(-len(samples) // batch_size)
    part = ranks.share(batches)
    book = Scorebook(samples, spec=spec, keep=keep, facts=facts, first=part.start * batch_size)
    frames = min(part.stop * batch_size, len(samples)) - book.first
    memory = memory_meter(device)
    entered: Future[None] | None = None
    done = 0

    def count_on() -> None:
        progress("evaluate", done, frames)

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
        part=part,
    )
    with watching(memory, model, every_s=1.0), closing(inferring), ThreadPoolExecutor(max_workers=1) as beside:
        for inferred in inferring:
            read = inferred.read.samples
            kept = {row: sample.tokens for row, sample in enumerate(read) if book.keeps(book.first + done + row)}
            kept = {row: None if tokens is None else tokens.to("cpu", copy=True) for row, tokens in kept.items()}
            if entered is not None:
                entered.result()
            entered = beside.submit(_enter, book, inferred, kept)  # beside the work on the next batch
            done += len(read)
        if entered is not None:
            entered.result()
    for _ in range(-(-batches // ranks.count) - len(part)):
        count_on()
    progress("evaluate", frames, frames)
    pages = joined(ranks.collect(book.pages))
    table = MatchTable(pages.matches, min_points=spec.min_points)
    return Evaluation(
        scores=scores(table, thresholds=ESAM_THRESHOLDS if esam_compat else AP_THRESHOLDS),
        table=table,
        frames=tuple(pages.frames),
        instances=tuple(pages.instances),
        statistics=_means(pages.frames),
        infer_ms=float(np.median([row["infer_ms"] for row in pages.frames])) if pages.frames else float("nan"),
        peak_mem_mb=memory.peak_mb(),
        memory_of=memory.of,
        views=views_of(pages),
    )


def _enter(book: Scorebook, inferred: Inferred, kept: dict[int, Tensor | None]) -> None:
    for row, (sample, found, reported) in enumerate(
        zip(inferred.batch, inferred.found, inferred.reported, strict=True)
    ):
        book.enter(sample, found, reported=reported, tokens=kept.get(row))


def _means(rows: list[Row]) -> dict[str, float]:
    """Mean of every number of the rows over the frames that have it; the time is reported by its median instead."""
    names = dict.fromkeys(name for row in rows for name in row if name not in _NOT_AVERAGED)
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {name: float(np.mean(numbers)) for name, numbers in values.items() if numbers}
