"""The training loop. It can stop after any step and go on from there with the same numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from ditr.data.batch import Batch
from ditr.data.loading import batches
from ditr.data.samples import SampleSet
from ditr.errors import Code, DitrError
from ditr.model.output import ModelOutput, to_floats
from ditr.progress import Progress
from ditr.resources import memory_meter, watching
from ditr.seeds import derive_seed
from ditr.spec.models import ScheduleSpec, Spec
from ditr.training.criterion import Criterion, Losses
from ditr.training.schedule import learning_rate
from ditr.training.state import Ledger, TrainingState


class MetricSink(Protocol):
    """Where numbers go as they arise; ``step`` counts the optimizer's steps over the whole training, from 1.

    A training that was killed goes on from its last saved state and logs the steps since then again, with equal losses.
    """

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a training cost; the weights are in the model."""

    step_ms: float
    """Mean milliseconds of a step (copy to the device, 2D features if online, forward, loss, backward, update), without
    waiting for data; the first steps, which warm up, count."""
    peak_mem_mb: float
    """Most MiB in use during a step, as a ``MemoryMeter`` counts; validations apart."""
    epochs_done: int
    finished: bool
    """False if it was stopped; the state is saved and the next call goes on."""


def fit(
    model: nn.Module,
    *,
    train: SampleSet,
    spec: Spec,
    seed: int,
    device: torch.device,
    sink: MetricSink,
    state: TrainingState,
    encode: Callable[[Batch], Batch],
    validate: Callable[[int], Mapping[str, float]],
    progress: Progress,
    should_stop: Callable[[], bool],
) -> FitResult:
    """Train until the last epoch or until ``should_stop()``, which is asked before each step and each validation.

    AdamW decays all parameters, norms and biases too, as ESAM does. ``encode`` gets each batch on the device and gives
    it its 2D feature maps if they are computed online. ``validate`` gets the number of epochs done. Logged are train/*
    after each step, epoch/* (means over the steps) after each epoch and val/* after each validation. On the CPU a
    training gives the same bits every time, stopped or not. Raises DitrError (run) for a loss or gradient that is not
    finite, with the frames of the step; no step is ever skipped.
    """
    schedule = spec.schedule
    steps = math.ceil(len(train) / schedule.batch_size)
    plan = {"seed": seed, "epochs": schedule.epochs, "batch_size": schedule.batch_size, "samples": len(train)}
    criterion = Criterion(spec.loss, esam_compat=spec.esam_compat)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    at = state.restore(model=model, optimizer=optimizer, plan=plan)
    memory = memory_meter(device)

    def save() -> None:
        state.save(at, model=model, optimizer=optimizer, plan=plan)

    while True:
        if at.epoch > at.validated and _validation_due(schedule, epochs_done=at.epoch):
            if should_stop():
                return _result(at, finished=False)
            sink.log(at.epoch * steps, {f"val/{name}": value for name, value in validate(at.epoch).items()})
            at.validated = at.epoch
            save()
        if at.epoch == schedule.epochs:
            return _result(at, finished=True)

        model.train()
        lr = _set_learning_rate(optimizer, learning_rate(schedule, at.epoch, esam_compat=spec.esam_compat))
        train.set_epoch(at.epoch)
        memory.begin()
        what = f"epoch {at.epoch + 1}/{schedule.epochs}"
        progress(what, at.step, steps)
        idle_since = time.perf_counter()
        for batch in batches(
            train, batch_size=schedule.batch_size, shuffle=True, workers=spec.execution.workers, first_batch=at.step
        ):
            if should_stop():
                save()
                return _result(at, finished=False)
            began = time.perf_counter()
            torch.manual_seed(derive_seed(seed, "step", at.epoch, at.step))  # so no generator's state needs keeping
            step = at.epoch * steps + at.step + 1
            with _reproducible_on_cpu(device), watching(memory, model):
                metrics = _train_step(
                    model,
                    encode(batch.to(device)),
                    criterion=criterion,
                    optimizer=optimizer,
                    clip=schedule.grad_clip_norm,
                )
            metrics |= {"lr": lr, "data_ms": 1e3 * (began - idle_since), "step_ms": _ms_since(began, device=device)}
            at.add(metrics, mem_mb=memory.peak_mb())
            idle_since = time.perf_counter()
            sink.log(step, {f"train/{name}": value for name, value in metrics.items()})
            progress(what, at.step, steps)

        sink.log(at.epoch * steps + steps, {f"epoch/{name}": value for name, value in _epoch_means(at, device).items()})
        at.begin_epoch()
        save()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # gives torch's cache back to the sparse library, which allocates beside it


def _train_step(
    model: nn.Module, batch: Batch, *, criterion: Criterion, optimizer: torch.optim.Optimizer, clip: float
) -> dict[str, float]:
    """One update of the model in place; what there is to log about it."""
    output: ModelOutput = model(batch)
    losses = criterion(output, batch)
    terms = to_floats(losses.terms)
    _require_finite("loss", losses.total.item(), batch=batch, terms=terms)
    optimizer.zero_grad()
    losses.total.backward()  # type: ignore[no-untyped-call]
    norm = clip_grad_norm_(model.parameters(), clip).item()
    _require_finite("gradient's norm", norm, batch=batch, terms=terms)
    optimizer.step()
    return terms | _step_metrics(losses, output, batch) | {"grad_norm": norm}


def _step_metrics(losses: Losses, output: ModelOutput, batch: Batch) -> dict[str, float]:
    return {
        "loss": losses.total.item(),
        **to_floats(output.statistics),
        "unmatched_samples": losses.unmatched_samples.item(),
        "unlabelled_samples": losses.unlabelled_samples.item(),
        "points": sum(len(sample.xyz) for sample in batch),
        "queries": sum(len(sample.query_superpoints) for sample in output.samples),
        "depth_ok_ratio": sum(sample.depth_ok_ratio for sample in batch) / len(batch),
        "boundary_ok_ratio": sum(sample.boundary_ok_ratio for sample in batch) / len(batch),
    }


def _require_finite(name: str, value: float, *, batch: Batch, terms: dict[str, float]) -> None:
    if not math.isfinite(value):
        raise DitrError(
            f"the {name} is {value}; terms: " + ", ".join(f"{term} {number:g}" for term, number in terms.items()),
            code=Code.RUN,
            where=", ".join(sample.frame_id for sample in batch),
            fix="look at these frames with `ditr data show` and lower schedule.learning_rate; no step was skipped",
        )


def _validation_due(schedule: ScheduleSpec, *, epochs_done: int) -> bool:
    return epochs_done % schedule.validate_every == 0 or epochs_done == schedule.epochs


def _set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def _ms_since(began: float, *, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - began)


def _epoch_means(at: Ledger, device: torch.device) -> dict[str, float]:
    means = at.means() | {"peak_mem_mb": at.peak_mem_mb}
    if device.type == "cuda":
        means["peak_mem_torch_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return means


@contextmanager
def _reproducible_on_cpu(device: torch.device) -> Iterator[None]:
    """Sums in a fixed order.

    Otherwise torch adds gradients of indexed rows in the order in which its threads come, and the sparse library lists
    the pairs of a kernel map so: hence one thread. The other cores read and augment the next samples.
    """
    if device.type != "cpu":
        yield
        return
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def _result(at: Ledger, *, finished: bool) -> FitResult:
    return FitResult(
        step_ms=at.timed_ms / max(at.timed_steps, 1),
        peak_mem_mb=at.peak_mem_mb,
        epochs_done=at.epoch,
        finished=finished,
    )
