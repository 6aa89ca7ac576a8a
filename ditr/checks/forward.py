"""Stage 2, forward: one pass of the model is finite, gates are open both ways, and a batch is its frames."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from ditr.checks.measure import Measurements, in_a_line
from ditr.checks.subject import Subject
from ditr.checks.tables import COSTS, GATES, OUTPUTS, PASSES
from ditr.data.batch import Batch
from ditr.errors import DitrError
from ditr.model.esam import EsamSingleView
from ditr.model.output import ModelOutput, SampleOutput
from ditr.model.statistics import floats_of_samples
from ditr.progress import Progress
from ditr.resources import memory_meter, watching
from ditr.seeds import derive_seed

_TOGETHER = 3
"""Frames in one batch."""
_AWAKE = 0.05
"""Standard deviation of what added layers that start at zero get for a while: else no output would depend on a map."""


def measure_forward(subject: Subject, *, indices: Sequence[int], progress: Progress) -> Iterator[Measurements]:
    """Every frame alone, as evaluation reads it; then some in one batch."""
    passes, gates, costs = Measurements(PASSES), Measurements(GATES), Measurements(COSTS)
    meter, model = memory_meter(subject.device), subject.model.eval()
    warm, whole = False, True
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
        except DitrError as error:
            passes.take("forward_errors", 1, frame, note=in_a_line(error))
            whole = False
            continue
        costs.take("forward_s", time.perf_counter() - began, frame)
        costs.take("forward_mb", meter.peak_mb(), frame, note=meter.of)
        (statistics,) = floats_of_samples(output.statistics, samples=1)
        for gate in GATES:
            gates.take(gate.name, statistics.get(gate.name, math.nan), frame)
        if wrong := _not_finite(output, statistics):
            passes.take("forward_not_finite", 1, frame, note=wrong)
    progress("forward passes", len(indices), len(indices))
    yield passes
    if subject.spec.fusion.bifusion is not None:
        yield gates
    yield costs
    if whole:
        with _awake(subject.model, seed=subject.seed):
            yield _outputs(subject, indices)


@torch.no_grad()
def _output(model: EsamSingleView, batch: Batch) -> ModelOutput:
    output: ModelOutput = model(batch)
    return output


def _not_finite(output: ModelOutput, statistics: Mapping[str, float]) -> str:
    """What of the output has NaN or infinity; empty if nothing."""
    wrong = [name for name, value in statistics.items() if not math.isfinite(value)]
    for number, head in enumerate(output.samples[0].heads):
        wrong += [
            f"{what} of head {number}"
            for what, values in (("classes", head.class_logits), ("masks", head.masks))
            if not torch.isfinite(values).all()
        ]
    if not torch.isfinite(output.samples[0].semantic_logits).all():
        wrong.append("semantic classes")
    return ", ".join(wrong)


def _outputs(subject: Subject, indices: Sequence[int]) -> Measurements:
    """The first head of every sample: it depends on the features alone, and on no threshold that rounding may cross."""
    found = Measurements(OUTPUTS)
    parts = [subject.batch(subject.plain, [index]) for index in indices[:_TOGETHER]]
    if subject.spec.fusion.parts:
        _map_matters(subject, parts[0], into=found)
    if len(parts) == 1:
        parts.append(subject.batch(subject.augmented, indices[:1]))
    batch = Batch(samples=tuple(sample for part in parts for sample in part))
    alone = [_output(subject.model, part).samples[0] for part in parts]
    together = _output(subject.model, batch).samples
    for number, (part, one, other) in enumerate(zip(parts, alone, together, strict=False)):
        where = f"{part.samples[0].frame_id} (number {number + 1} of the batch)"
        found.take("batch_equals_single", _difference(one, other), where)
    if len(together) != len(parts):
        found.take("batch_equals_single", math.inf, f"a batch of {len(parts)} frames, which gave {len(together)}")
    return found


def _map_matters(subject: Subject, batch: Batch, *, into: Measurements) -> None:
    """What comes out depends on what the map says: a fusion that fell back to the 3D-only model does not."""
    sample = batch.samples[0]
    assert sample.tokens is not None, "a batch as the model reads it has maps"
    turned = Batch(samples=(replace(sample, tokens=sample.tokens.flip(1, 2)),))
    value = _difference(_output(subject.model, batch).samples[0], _output(subject.model, turned).samples[0])
    into.take("map_matters", value, note=f"with the map of {sample.frame_id} turned by half")


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
        for weight in model.added_parameters.values():
            if not weight.any():
                weight.copy_(_AWAKE * torch.randn(weight.shape, generator=generator))
                asleep.append(weight)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight in asleep:
                weight.zero_()
