"""Stage 2, forward: one pass of the model is finite, gates are open both ways, and a batch is its frames."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ditr.checks.outcome import Check, Subject, at_least, at_most, first_of, largest, reported, told, within
from ditr.data.batch import Batch
from ditr.errors import DitrError
from ditr.model.esam import EsamSingleView
from ditr.model.output import ModelOutput, SampleOutput
from ditr.progress import Progress
from ditr.resources import memory_meter, watching
from ditr.seeds import derive_seed
from ditr.weights.names import ADDED_PARTS, group_of

_TOGETHER = 3
"""Frames in one batch."""
_AWAKE = 0.05
"""Standard deviation of what added layers that start at zero get for a while: else no output would depend on a map."""
GATES = ("fusion_2d_ratio", "fusion_3d_ratio")


@dataclass
class _Passes:
    """Of every frame by id."""

    failed: dict[str, str] = field(default_factory=dict)
    not_finite: dict[str, str] = field(default_factory=dict)
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    mb: dict[str, float] = field(default_factory=dict)
    memory_of: str = ""


def check_forward(subject: Subject, *, indices: Sequence[int], progress: Progress) -> Iterator[Check]:
    """Every frame alone, as evaluation reads it; then some in one batch."""
    passes, limits = _passes(subject, indices, progress=progress), subject.spec.checks
    yield at_most(2, "forward_errors", len(passes.failed), limit=0, detail=first_of(passes.failed))
    yield at_most(2, "forward_not_finite", len(passes.not_finite), limit=0, detail=first_of(passes.not_finite))
    if subject.spec.fusion.bifusion is not None:
        for gate in GATES:
            yield _gate(gate, passes, limits=limits.gate_range)
    yield _limited("forward_s", passes.seconds, limit=limits.max_forward_s, detail="")
    yield _limited("forward_mb", passes.mb, limit=limits.max_forward_mb, detail=passes.memory_of)
    if passes.failed:
        return
    with _awake(subject.model, seed=subject.seed):
        yield _batch_equals_single(subject, indices)
        if subject.spec.fusion.parts:
            yield _map_matters(subject, indices)


def _passes(subject: Subject, indices: Sequence[int], *, progress: Progress) -> _Passes:
    found, model = _Passes(), subject.model.eval()
    meter = memory_meter(subject.device)
    found.memory_of = meter.of
    warm = False
    for done, index in enumerate(indices):
        progress("forward passes", done, len(indices))
        frame = subject.frames.ids[index]
        try:
            batch = subject.batch(subject.plain, [index])
            if not warm:  # the first pass of a process pays for what the others find made
                _output(model, batch)
                warm = True
            meter.begin()
            began = time.perf_counter()
            with watching(meter, model):
                output = _output(model, batch)
            if subject.device.type == "cuda":
                torch.cuda.synchronize(subject.device)
            found.seconds[frame] = time.perf_counter() - began
            found.mb[frame] = meter.peak_mb()
        except DitrError as error:
            found.failed[frame] = told(error)
            continue
        found.statistics[frame] = output.statistics
        if wrong := _not_finite(output):
            found.not_finite[frame] = wrong
    progress("forward passes", len(indices), len(indices))
    return found


@torch.no_grad()
def _output(model: EsamSingleView, batch: Batch) -> ModelOutput:
    output: ModelOutput = model(batch)
    return output


def _not_finite(output: ModelOutput) -> str:
    """What of the output has NaN or infinity; empty if nothing."""
    wrong = [name for name, value in output.statistics.items() if not math.isfinite(value)]
    for number, head in enumerate(output.samples[0].heads):
        wrong += [
            f"{what} of head {number}"
            for what, values in (("classes", head.class_logits), ("masks", head.masks))
            if not torch.isfinite(values).all()
        ]
    if not torch.isfinite(output.samples[0].semantic_logits).all():
        wrong.append("semantic classes")
    return ", ".join(wrong)


def _gate(name: str, passes: _Passes, *, limits: tuple[float, float]) -> Check:
    """The frame farthest from the middle."""
    values = {frame: of_frame.get(name, math.nan) for frame, of_frame in passes.statistics.items()}
    _, frame = largest({frame: abs(value - 0.5) for frame, value in values.items()})
    value = values.get(frame, math.nan)
    fix = "a gate that is shut lets only one of the two through: check checkpoint and feature source"
    return within(2, name, value, limits=limits, detail=f"farthest from 0.5 in {frame}", fix=fix)


def _limited(name: str, values: dict[str, float], *, limit: float | None, detail: str) -> Check:
    value, frame = largest(values)
    detail = ", ".join(part for part in (f"most in {frame}", detail) if part)
    return (
        reported(2, name, value, detail=detail)
        if limit is None
        else at_most(2, name, value, limit=limit, detail=detail)
    )


def _batch_equals_single(subject: Subject, indices: Sequence[int]) -> Check:
    """The first head of every sample: it depends on the features alone, and on no threshold that rounding may cross."""
    parts = [subject.batch(subject.plain, [index]) for index in indices[:_TOGETHER]]
    if len(parts) == 1:
        parts.append(subject.batch(subject.augmented, indices[:1]))
    batch = Batch(samples=tuple(sample for part in parts for sample in part))
    alone = [_output(subject.model, part).samples[0] for part in parts]
    together = _output(subject.model, batch).samples
    differences = {
        f"{part.samples[0].frame_id} (number {number + 1} of the batch)": _difference(one, other)
        for number, (part, one, other) in enumerate(zip(parts, alone, together, strict=False))
    }
    if len(together) != len(parts):
        differences[f"a batch of {len(parts)} frames, which gave {len(together)}"] = math.inf
    value, where = largest(differences)
    fix = "samples of a batch are dropped, swapped or mixed"
    limit = subject.spec.checks.max_batch_error
    return at_most(2, "batch_equals_single", value, limit=limit, detail=f"most in {where}", fix=fix)


def _map_matters(subject: Subject, indices: Sequence[int]) -> Check:
    """What comes out depends on what the map says: a fusion that fell back to the 3D-only model does not."""
    batch = subject.batch(subject.plain, indices[:1])
    sample = batch.samples[0]
    assert sample.tokens is not None, "a batch as the model reads it has maps"
    turned = Batch(samples=(replace(sample, tokens=sample.tokens.flip(1, 2)),))
    value = _difference(_output(subject.model, batch).samples[0], _output(subject.model, turned).samples[0])
    detail = f"with the map of {sample.frame_id} turned by half"
    fix = "no part of the fusion reads the map"
    limit = subject.spec.checks.min_map_effect
    return at_least(2, "map_matters", value, limit=limit, detail=detail, fix=fix)


def _difference(one: SampleOutput, other: SampleOutput) -> float:
    a, b = ((sample.heads[0].masks, sample.heads[0].class_logits) for sample in (one, other))
    return max(_relative(x, y) for x, y in zip(a, b, strict=True))


def _relative(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return math.inf
    return float((one - other).norm() / one.norm().clamp(min=1e-12))


@contextmanager
def _awake(model: EsamSingleView, *, seed: int) -> Iterator[None]:
    """Added parts do something in here: what starts at zero has small numbers of a fixed seed.

    In place and undone, as layers of the sparse library cannot be copied.
    """
    generator, asleep = torch.Generator().manual_seed(derive_seed(seed, "check", "awake")), []
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if group_of(name) in ADDED_PARTS and not weight.any():
                weight.copy_(_AWAKE * torch.randn(weight.shape, generator=generator))
                asleep.append(weight)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight in asleep:
                weight.zero_()
