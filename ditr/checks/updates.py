"""A few updates of the added parts alone, by the loss of training: every one of them must get a gradient and act."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ditr.checks.forward_trace import ForwardTrace, in_pairs, name_of, places_of, relative_norm, trace_pass, tracing
from ditr.checks.initialisation import at_start
from ditr.checks.measure import Measure, Measurements
from ditr.checks.model_copies import added_parameters, model_copy
from ditr.checks.reference_additions import projection_of
from ditr.checks.subject import Subject
from ditr.checks.tables import DOUBLING, FROZEN, GRADIENT, GRADIENTS, MOVED
from ditr.data.batch import Batch
from ditr.model.esam import EsamSingleView
from ditr.progress import Progress
from ditr.seeds import derive_seed
from ditr.training.criterion import Criterion

_DEVIATION = 0.05
"""Standard deviation of biases, norms, and of what a layer makes of a feature of mean length."""


def measure_updates(subject: Subject, *, progress: Progress) -> Iterator[Measurements]:
    """On copies of the model; frames are read as training reads them."""
    pairs = in_pairs(len(subject.augmented))
    model = model_copy(subject).train()
    added = added_parameters(model)
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
            for part, module in _parts(model, subject).items():
                norm = _gradient_norm(module)
                gradients[part] = norm if step == 0 else _larger(gradients[part], norm)
            if step < steps:
                optimizer.step()
        progress("updates", steps + 1, steps + 1)
    for name in sorted(foreign):
        weights.take("weights_outside_model", 1, name)
    for name in sorted(untouched):
        weights.take("weights_without_gradient", 1, name)
    yield weights
    yield from (_one(GRADIENT, part, gradients.get(part, 0.0)) for part in _parts(model, subject))
    yield from _moved(trace, subject)
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


def _parts(model: EsamSingleView, subject: Subject) -> dict[str, nn.Module]:
    """What has to learn: each place's projection, and of the gate what either feature goes through."""
    parts: dict[str, nn.Module] = {
        name_of(*place): projection_of(model, *place) for place in places_of(subject.spec.fusion)
    }
    if model.bifusion is not None:
        gate = model.bifusion
        parts |= {"gate_2d": gate.adapt_2d, "gate_3d": gate.adapt_3d, "gate": gate.gate}
        parts["bifusion_residual"] = gate.residual
    return parts


def _gradient_norm(module: nn.Module) -> float:
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))


def _moved(trace: ForwardTrace, subject: Subject) -> Iterator[Measurements]:
    """How strong each place is after the updates: the norm of what is added to that of the base."""
    for at in places_of(subject.spec.fusion):
        found = trace.at(*at)
        sound = found is not None and found.same_shape
        yield _one(
            MOVED,
            name_of(*at),
            relative_norm(found.before.features, found.after.features) if found and sound else math.nan,
        )
    if subject.spec.fusion.bifusion is not None:
        gate = trace.gate
        value = math.nan if gate is None else relative_norm(gate.before, gate.after)
        yield _one(MOVED, "bifusion", value)


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
        for name, weight in added_parameters(model).items():
            generator = torch.Generator().manual_seed(derive_seed(subject.seed, "deviation", name))
            noise = _DEVIATION * scale * torch.randn(weight.shape, generator=generator).to(weight.device)
            weight.add_(noise if weight.dim() == 1 else noise / size)
        trace = trace_pass(model, batch)
    norms = {}
    for at in places_of(subject.spec.fusion):
        found = trace.at(*at)
        norms[name_of(*at)] = float(found.added.norm()) if found is not None and found.same_shape else math.nan
    return norms


def _larger(one: float, other: float) -> float:
    """NaN if either is."""
    return one if math.isnan(one) or one > other else other
