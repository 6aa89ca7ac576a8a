"""The training loop. It can stop after any step and go on from there with the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import nn

from ditr.data.batch import Batch
from ditr.data.loading import batches
from ditr.data.samples import SampleSet
from ditr.model.moments import Moment, moment
from ditr.model.prefetch import Prefetcher, engine_of
from ditr.progress import Progress
from ditr.resources import memory_meter, watching
from ditr.seeds import derive_seed
from ditr.spec.models import ScheduleSpec, Spec
from ditr.training.criterion import Criterion
from ditr.training.pending import PendingSteps, Span
from ditr.training.reproducible import reproducible
from ditr.training.schedule import learning_rate
from ditr.training.state import Ledger, TrainingState
from ditr.training.step import train_step

FETCH_EVERY_S = {"cpu": 0.0, "cuda": 1.0}
"""How long numbers of steps may stay on a device: a look waits for all that a GPU was told to do, and on the CPU for
nothing."""


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
    schedule, engine = spec.schedule, engine_of(model)
    steps = math.ceil(len(train) / schedule.batch_size)
    plan = {"seed": seed, "epochs": schedule.epochs, "batch_size": schedule.batch_size, "samples": len(train)}
    criterion = Criterion(spec.loss, esam_compat=spec.esam_compat)
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        fused=device.type == "cuda",
    )
    at = state.restore(model=model, optimizer=optimizer, plan=plan)
    memory = memory_meter(device)
    prefetcher = Prefetcher(device, encode=encode, model=model)
    pending = PendingSteps(every_s=FETCH_EVERY_S[device.type])

    def fetch() -> None:
        if pending:
            at.peak_mem_mb = max(at.peak_mem_mb, memory.peak_mb())
        for step, metrics in pending.fetch():
            at.add(metrics)
            sink.log(step, {f"train/{name}": value for name, value in metrics.items()})

    def save() -> None:
        state.save(at, model=model, optimizer=optimizer, plan=plan)

    def step(batch: Batch, *, lr: float, idle_since: Moment) -> Moment:
        began = moment(device)
        torch.manual_seed(derive_seed(seed, "step", at.epoch, at.step))  # so that no generator's state needs keeping
        with reproducible(device, engine=engine):
            numbers = train_step(
                model,
                prefetcher.ready(batch),
                criterion=criterion,
                optimizer=optimizer,
                clip=schedule.grad_clip_norm,
                precision=spec.execution.precision,
            )
        span = Span(idle_since=idle_since, began=began, ended=moment(device))
        at.step += 1
        pending.add(at.epoch * steps + at.step, numbers, lr=lr, frames=batch.frame_ids, span=span)
        if pending.due:
            fetch()
        return span.ended

    def rest_of_epoch(feed: Iterator[Batch]) -> bool:
        """Whether it came to its end, and was not stopped."""
        model.train()
        lr = _set_learning_rate(optimizer, learning_rate(schedule, at.epoch, esam_compat=spec.esam_compat))
        memory.begin()
        what = f"epoch {at.epoch + 1}/{schedule.epochs}"
        progress(what, at.step, steps)
        idle_since = moment(device)
        with watching(memory, model, every_s=1.0):
            for batch in islice(feed, steps - at.step):
                if should_stop():
                    return False
                idle_since = step(batch, lr=lr, idle_since=idle_since)
                progress(what, at.step, steps)
        return True

    train.set_epoch(at.epoch)
    pinned, left = device.type == "cuda", schedule.epochs - at.epoch
    with closing(
        batches(
            train,
            batch_size=schedule.batch_size,
            shuffle=True,
            workers=spec.execution.workers,
            epochs=left,
            first_batch=at.step,
            pinned=pinned,
        )
    ) as feed:
        while True:
            if at.epoch > at.validated and _validation_due(schedule, epochs_done=at.epoch):
                if should_stop():
                    return _result(at, finished=False)
                sink.log(at.epoch * steps, {f"val/{name}": value for name, value in validate(at.epoch).items()})
                at.validated = at.epoch
                save()
            if at.epoch == schedule.epochs:
                return _result(at, finished=True)
            with _fetching_what_an_error_leaves(fetch):
                ended = rest_of_epoch(feed)
                fetch()
            if not ended:
                save()
                return _result(at, finished=False)
            means = {f"epoch/{name}": value for name, value in _epoch_means(at, device).items()}
            sink.log(at.epoch * steps + steps, means)
            at.begin_epoch()
            save()
            if device.type == "cuda" and engine == "minkowski":
                torch.cuda.empty_cache()  # gives torch's cache back to the sparse library, which allocates beside it


@contextmanager
def _fetching_what_an_error_leaves(fetch: Callable[[], None]) -> Iterator[None]:
    """What the steps before an error said is not lost; and if one of them diverged, that is the error to be told."""
    try:
        yield
    except Exception:
        fetch()
        raise


def _validation_due(schedule: ScheduleSpec, *, epochs_done: int) -> bool:
    return epochs_done % schedule.validate_every == 0 or epochs_done == schedule.epochs


def _set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def _epoch_means(at: Ledger, device: torch.device) -> dict[str, float]:
    means = at.means() | {"peak_mem_mb": at.peak_mem_mb}
    if device.type == "cuda":
        means["peak_mem_torch_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return means


def _result(at: Ledger, *, finished: bool) -> FitResult:
    return FitResult(
        step_ms=at.timed_ms / max(at.timed_steps, 1),
        peak_mem_mb=at.peak_mem_mb,
        epochs_done=at.epoch,
        finished=finished,
    )
