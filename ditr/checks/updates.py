"""A few updates of the added parts alone, by the loss of training: every one of them must get a gradient and act."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ditr.checks.forward_trace import ForwardTrace, in_pairs, places_of, relative_norm, trace_pass, tracing
from ditr.checks.initialisation import at_start
from ditr.checks.measure import Measure, Measurements
from ditr.checks.model_copies import model_copy
from ditr.checks.parts import strength
from ditr.checks.reference_additions import projection_of
from ditr.checks.subject import Subject
from ditr.checks.tables import DOUBLING, FROZEN, GRADIENT, GRADIENTS, MOVED, PART_LEARNS
from ditr.data.batch import Batch
from ditr.model.bifusion import BiFusion
from ditr.model.esam import EsamSingleView
from ditr.model.injector import name_of
from ditr.progress import Progress
from ditr.seeds import derive_seed
from ditr.training.criterion import Criterion

_DEVIATION = 0.05
"""Standard deviation of biases, norms, and of what a layer makes of a feature of mean length."""


def measure_updates(subject: Subject, *, progress: Progress) -> Iterator[Measurements]:
    """On copies of the model; frames are read as training reads them."""
    pairs = in_pairs(len(subject.augmented))
    model = model_copy(subject).train()
    added = model.added_parameters
    frozen, weights = Measurements(FROZEN), Measurements(GRADIENTS)
    for name, weight in added.items():
        frozen.take("frozen_weights", not weight.requires_grad, name)
    yield frozen
    _freeze_the_rest(model, added)
    schedule, steps = subject.spec.schedule, subject.spec.checks.steps
    learning = [weight for weight in added.values() if weight.requires_grad]
    gradients: dict[str, float] = defaultdict(float)
    untouched, foreign = set(added), set[str]()
    trace = ForwardTrace()
    if learning:
        optimizer = torch.optim.AdamW(learning, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
        for step in range(steps + 1):  # behind a zero layer a gradient arrives after the first update only
            progress("updates", step, steps + 1)
            batch = subject.batch(subject.augmented, pairs[step % len(pairs)])
            trace, loss = _loss(model, batch, subject=subject)
            optimizer.zero_grad()
            foreign |= _leaves_outside(model, loss)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            untouched -= {name for name, weight in added.items() if weight.grad is not None}
            for name, module in {**_layers(model, subject), **_parts(model)}.items():
                norm = _gradient_norm(module)
                gradients[name] = norm if step == 0 else _larger(gradients[name], norm)
            if step < steps:
                optimizer.step()
        progress("updates", steps + 1, steps + 1)
    for name in sorted(foreign):
        weights.take("weights_outside_model", 1, name)
    for name in sorted(untouched):
        weights.take("weights_without_gradient", 1, name)
    yield weights
    yield from (_one(GRADIENT, layer, gradients.get(layer, 0.0)) for layer in _layers(model, subject))
    yield from _moved(trace, subject)
    yield from _learnt(model, trace, gradients, batch=subject.batch(subject.plain, pairs[0]))
    if at_start(subject) and places_of(subject.spec.fusion):
        yield from _doubling(subject, subject.batch(subject.augmented, pairs[0]))


def _one(table: tuple[Measure], at: str, value: float) -> Measurements:
    """Of a table of one measure, its one value at a place."""
    found = Measurements(table, at=at)
    found.take(table[0].name, value)
    return found


def _loss(model: EsamSingleView, batch: Batch, *, subject: Subject) -> tuple[ForwardTrace, Tensor]:
    with tracing(model) as trace:
        output = model(batch)
    criterion = Criterion(subject.spec.loss, esam_compat=subject.spec.esam_compat)
    return trace, criterion(output, batch).total


def _freeze_the_rest(model: EsamSingleView, added: dict[str, nn.Parameter]) -> None:
    for name, weight in model.named_parameters():
        if name not in added:
            weight.requires_grad_(False)


def _leaves_outside(model: EsamSingleView, loss: Tensor) -> set[str]:
    """Weights that the loss depends on and no optimizer of the model's parameters would ever change."""
    known = {id(weight) for weight in model.parameters()}
    waiting: list[Any] = [loss.grad_fn] if loss.grad_fn is not None else []
    visited: set[Any] = set()
    outside = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            outside.add(f"a weight of shape {tuple(leaf.shape)}")
        waiting += [following for following, _ in node.next_functions]
    return outside


def _layers(model: EsamSingleView, subject: Subject) -> dict[str, nn.Module]:
    """What has to learn of the built-in parts: each place's projection, and what either feature goes through to the
    gate."""
    layers: dict[str, nn.Module] = {
        name_of(place): projection_of(model, *place) for place in places_of(subject.spec.fusion)
    }
    if subject.spec.fusion.bifusion is not None:
        gate = cast(BiFusion, model.parts["bifusion"])
        layers |= {"gate_2d": gate.adapt_2d, "gate_3d": gate.adapt_3d, "gate": gate.gate}
        layers["bifusion_residual"] = gate.residual
    return layers


def _parts(model: EsamSingleView) -> dict[str, nn.Module]:
    """Any part, by the name that its checks begin with."""
    return {f"part_{name}": module for name, module in model.parts.items()}


def _gradient_norm(module: nn.Module) -> float:
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))


def _moved(trace: ForwardTrace, subject: Subject) -> Iterator[Measurements]:
    """How strong each place is after the updates: the norm of what is added to that of the base."""
    for at in places_of(subject.spec.fusion):
        found, value = trace.at(*at), math.nan
        if found is not None and found.same_shape:
            before = found.before.features
            value = relative_norm(before, before + trace.added_by_built_in(found))
        yield _one(MOVED, name_of(at), value)


def _learnt(
    model: EsamSingleView, trace: ForwardTrace, gradients: Mapping[str, float], *, batch: Batch
) -> Iterator[Measurements]:
    """Of any part after the updates: how strong it is, and whether what it does follows the map. The map is turned by
    half for it, all that it gets of the 3D features being the same."""
    turned = Batch(samples=tuple(replace(one, tokens=cast(Tensor, one.tokens).flip(1, 2)) for one in batch))
    model.eval()
    with torch.no_grad():
        upright, others = trace_pass(model, batch).parts, trace_pass(model, turned).parts
        for name in model.parts:
            found = Measurements(PART_LEARNS, at=f"part_{name}")
            found.take("gradient", gradients.get(f"part_{name}", 0.0))
            found.take("moved", strength(trace.parts.of(name)))
            if others.features is not None and (acts := upright.of(name)):
                apart = sum(float((act.again(others.features) - act.after).square().sum()) for act in acts)
                change = sum(float(act.change.square().sum()) for act in acts)
                found.take("map_matters", math.sqrt(apart / max(change, 1e-24)), note="with the map turned by half")
            yield found


def _doubling(subject: Subject, batch: Batch) -> Iterator[Measurements]:
    """How what is added grows when a small deviation from the start doubles (docs/reference/fusion.md, Zero start)."""
    once, twice = (_deviated(subject, batch, scale=scale) for scale in (1, 2))
    for name in once:
        yield _one(DOUBLING, name, twice[name] / once[name] if once[name] > 0 else math.nan)


def _deviated(subject: Subject, batch: Batch, *, scale: int) -> dict[str, float]:
    """Norm of what each place adds in training, with every added weight a little off."""
    model = model_copy(subject).train()
    with torch.no_grad():
        points = model.read_2d(batch, statistics={})
        size = float(points.tokens.norm(dim=1).mean()) if points is not None else 1.0
        for name, weight in model.added_parameters.items():
            generator = torch.Generator().manual_seed(derive_seed(subject.seed, "deviation", name))
            noise = _DEVIATION * scale * torch.randn(weight.shape, generator=generator).to(weight.device)
            weight.add_(noise if weight.dim() == 1 else noise / size)
        trace = trace_pass(model, batch)
    norms = {}
    for at in places_of(subject.spec.fusion):
        found = trace.at(*at)
        norms[name_of(at)] = (
            float(trace.added_by_built_in(found).norm()) if found is not None and found.same_shape else math.nan
        )
    return norms


def _larger(one: float, other: float) -> float:
    """NaN if either is."""
    return one if math.isnan(one) or one > other else other
