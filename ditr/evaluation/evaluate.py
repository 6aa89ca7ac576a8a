"""Evaluate a model on frames: one at a time, as the protocol asks, and with a row of facts about each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ditr.data.batch import Batch, Sample
from ditr.data.frame import scene_of
from ditr.data.frame_view import FrameView, MapColours, spread_evenly, view_of
from ditr.data.loading import batches
from ditr.data.samples import SampleSet
from ditr.evaluation.instance_ap import AP_THRESHOLDS, ESAM_THRESHOLDS, Scores, scores
from ditr.evaluation.instance_facts import instance_rows
from ditr.evaluation.instances import Instances, prediction_of
from ditr.evaluation.match_table import FrameMatches, MatchTable
from ditr.evaluation.postprocess import instances
from ditr.evaluation.texture_ids import texture_ids
from ditr.features.principal_colours import PrincipalColours, fit_colours
from ditr.model.output import ModelOutput, to_floats
from ditr.progress import Progress, silent
from ditr.resources import memory_meter, watching
from ditr.spec.models import EvaluationSpec

_NOT_AVERAGED = ("frame_id", "scene", "infer_ms")

Row = dict[str, Any]
"""One frame: its id and scene, and numbers; None where a number does not exist for this frame."""


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
    """Median over frames of 2D features if online, forward pass and post-processing, data reading apart; NaN without
    frames."""
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
    progress: Progress = silent,
    keep: int = 0,
    facts: bool = False,
    esam_compat: bool = False,
) -> Evaluation:
    """Score ``model`` on all ``samples`` against their own targets, reading each once.

    ``keep`` frames, spread evenly, are kept for pictures; ``facts`` about all instances are kept or not. ``samples``
    must not be augmented. ``encode`` gets each frame on the device and gives it its 2D feature map if that is computed
    online. With ``esam_compat`` AP is the mean over ESAM's nine thresholds; for its ground truth the samples need to be
    made so too. The model is in evaluation mode meanwhile and as it was afterwards.
    """
    assert not samples.augmented, "augmented samples are no test"
    table = MatchTable(min_points=spec.min_points)
    rows: list[Row] = []
    of_instances: list[Row] = []
    views: list[FrameView] = []
    chosen = spread_evenly(keep, total=len(samples))
    colours: PrincipalColours | None = None
    textures = texture_ids(samples.frames.root) if facts else None
    memory = memory_meter(device)
    with _evaluating(model), watching(memory, model):
        for index, (sample,) in enumerate(batches(samples, batch_size=1, shuffle=False, workers=workers)):
            progress("evaluate", index, len(samples))
            batch, found, reported, infer_ms = _infer(model, sample, spec=spec, device=device, encode=encode)
            matches = table.add(sample.frame_id, found, sample.targets.instance_of_point.numpy())
            rows.append({**_numbers(reported), **_row(sample, matches, spec=spec), "infer_ms": infer_ms})
            if facts:
                ids = None if textures is None else textures[sample.frame_id]
                of_instances.extend(instance_rows(sample, best_iou=matches.best_iou(), texture_ids=ids))
            if index in chosen:
                tokens = batch.samples[0].tokens
                if tokens is not None and colours is None:
                    colours = fit_colours(tokens.flatten(1).T)  # one scale for all frames that are kept
                features = None if tokens is None or colours is None else _coloured(sample, tokens, colours=colours)
                views.append(_view(samples, index, sample=sample, found=found, features=features))
    progress("evaluate", len(samples), len(samples))
    return Evaluation(
        scores=scores(table, thresholds=ESAM_THRESHOLDS if esam_compat else AP_THRESHOLDS),
        table=table,
        frames=tuple(rows),
        instances=tuple(of_instances),
        statistics=_means(rows),
        infer_ms=float(np.median([row["infer_ms"] for row in rows])) if rows else float("nan"),
        peak_mem_mb=memory.peak_mb(),
        memory_of=memory.of,
        views=tuple(views),
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _infer(
    model: nn.Module,
    sample: Sample,
    *,
    spec: EvaluationSpec,
    device: torch.device,
    encode: Callable[[Batch], Batch],
) -> tuple[Batch, Instances, dict[str, float], float]:
    """What the model read, instances, what it reports about itself, and the milliseconds that it all took."""
    batch = Batch(samples=(sample,)).to(device)
    _wait_for(device)
    start = time.perf_counter()
    batch = encode(batch)
    output: ModelOutput = model(batch)
    (found,) = instances(output, batch, spec=spec)
    _wait_for(device)
    return batch, found, to_floats(output.statistics), 1e3 * (time.perf_counter() - start)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _row(sample: Sample, matches: FrameMatches, *, spec: EvaluationSpec) -> Row:
    counts = matches.gt_sizes >= spec.min_points
    return {
        "frame_id": sample.frame_id,
        "scene": scene_of(sample.frame_id),
        "n_points": len(sample.xyz),
        "n_void": int((sample.targets.instance_of_point < 0).sum()),
        "n_superpoints": sample.num_superpoints,
        "n_gt": int(counts.sum()),
        "n_gt_small": int((~counts).sum()),
        "n_pred": len(matches.scores),
        "best_iou": float(matches.best_iou()[counts].mean()) if counts.any() else None,
        "valid_ratio": float(sample.uv_valid.float().mean()),
        "depth_ok": _number(sample.depth_ok_ratio),
        "boundary_ok": _number(sample.boundary_ok_ratio),
    }


def _numbers(reported: dict[str, float]) -> Row:
    return {name: _number(value) for name, value in reported.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _coloured(sample: Sample, tokens: Tensor, *, colours: PrincipalColours) -> MapColours:
    return MapColours(of_tokens=colours.bytes_of_map(tokens), covers_hw=sample.map_hw)


def _view(
    samples: SampleSet, index: int, *, sample: Sample, found: Instances, features: MapColours | None
) -> FrameView:
    """Against the targets of the sample, which are not all that is annotated."""
    truth = sample.targets.instance_of_point.numpy()
    predicted = prediction_of(found, instance_of_point=truth)
    view = view_of(samples.frames, index)
    return replace(view, instance_of_point=truth, prediction=predicted, features=features)


def _means(rows: list[Row]) -> dict[str, float]:
    """Mean of every number of the rows over the frames that have it; the time is reported by its median instead."""
    names = dict.fromkeys(name for row in rows for name in row if name not in _NOT_AVERAGED)
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {name: float(np.mean(numbers)) for name, numbers in values.items() if numbers}
