"""The training loop. It can stop after any step and go on from there with the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ditr.data.batch import Batch
from ditr.data.loading import batch_indices, batches
from ditr.data.samples import SampleSet
from ditr.model.moments import Moment, moment
from ditr.model.prefetch import Prefetcher, engine_of, replaying, share
from ditr.model.reproducible import reproducible
from ditr.progress import Progress
from ditr.ranks import ALONE, RankLost, Ranks
from ditr.resources import give_back_freed_memory, memory_meter, watching
from ditr.seeds import derive_seed
from ditr.spec.models import LossSpec, ScheduleSpec, Spec
from ditr.training.criterion import Criterion
from ditr.training.pending import PendingSteps, Span
from ditr.training.schedule import learning_rate
from ditr.training.state import Ledger, TrainingState
from ditr.training.step import train_step

FETCH_EVERY_S = {"cpu": 0.0, "cuda": 1.0}
"""How long numbers of steps may stay on a device: a look waits for all that a GPU was told to do, and on the CPU for
nothing."""

_SENSELESS = 10_000.0
"""Times the sum of its weights is a loss from which no training has come back."""
_COMPILING = "compile the engine's kernels"


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
    waiting for data; first steps count, but for one in which kernels are compiled, and NaN if none is left. On a GPU
    from when it was free for the step until it had done it: what is made ready beside the step before takes no time."""
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
    ranks: Ranks = ALONE,
) -> FitResult:
    """Train until the last epoch or until ``should_stop()``, which is asked before each step and each validation.

    AdamW decays all parameters, norms and biases too, as ESAM does. ``encode`` gets each batch on the device and gives
    it its 2D feature maps if they are computed online. ``validate`` gets the number of epochs done. Logged are train/*
    of each step, in order, as its numbers come from the device; epoch/* (means over the steps) after each epoch and
    val/* after each validation. A training gives the same bits every time, stopped or not, but on a GPU with
    MinkowskiEngine. Raises DivergedError for a loss or gradient that is not finite, or a loss that makes no sense, of
    the first such step, before anything is saved of it; no step is ever skipped.

    Every rank calls this with the same arguments, and ``should_stop`` answers all of them alike. The one that leads
    saves, each measures its own time and memory, and all log the same. How many ranks there are changes no number by
    more than rounding, also where another number of them goes on.
    """
    schedule = spec.schedule
    model.to(device)
    share(model, ranks)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        fused=device.type == "cuda",
    )
    plan = {"seed": seed, "epochs": schedule.epochs, "batch_size": schedule.batch_size, "samples": len(train)}
    at = state.restore(model=model, optimizer=optimizer, plan=plan)
    ranks.equalise(model)
    train.set_epoch(at.epoch)
    feed = batches(
        train,
        batch_size=schedule.batch_size,
        shuffle=True,
        workers=spec.execution.workers,
        epochs=schedule.epochs - at.epoch,
        first_batch=at.step,
        pinned=device.type == "cuda",
        ranks=ranks,
    )
    training = _Training(
        at=at,
        model=model,
        train=train,
        optimizer=optimizer,
        spec=spec,
        seed=seed,
        device=device,
        steps=math.ceil(len(train) / schedule.batch_size),
        sink=sink,
        prefetcher=Prefetcher(device, encode=encode, model=model),
        save=lambda: state.save(at, model=model, optimizer=optimizer, plan=plan) if ranks.leads else None,
        validate=validate,
        progress=progress,
        should_stop=should_stop,
        ranks=ranks,
    )
    with closing(feed), replaying(model):
        finished = training.run(feed)
    return FitResult(
        step_ms=at.timed_ms / at.timed_steps if at.timed_steps else math.nan,
        peak_mem_mb=at.peak_mem_mb,
        epochs_done=at.epoch,
        finished=finished,
    )


@dataclass(kw_only=True)
class _Training:
    at: Ledger
    model: nn.Module
    train: SampleSet
    optimizer: torch.optim.Optimizer
    spec: Spec
    seed: int
    device: torch.device
    steps: int
    """Of an epoch."""
    sink: MetricSink
    prefetcher: Prefetcher
    save: Callable[[], None]
    validate: Callable[[int], Mapping[str, float]]
    progress: Progress
    should_stop: Callable[[], bool]
    ranks: Ranks

    def __post_init__(self) -> None:
        self.criterion = Criterion(self.spec.loss, esam_compat=self.spec.esam_compat, ranks=self.ranks)
        self.engine = engine_of(self.model)
        self.memory = memory_meter(self.device)
        self.pending = PendingSteps(every_s=FETCH_EVERY_S[self.device.type], most_loss=_most_loss(self.spec.loss))
        self.compiling = self.at.epoch * self.steps + self.at.step + 1 if self.engine == "triton" else None
        """The step in which the engine's kernels are compiled: minutes, when a machine sees them for the first time."""

    def run(self, feed: Iterator[Batch]) -> bool:
        """Whether it came to its end, and was not stopped."""
        at, schedule = self.at, self.spec.schedule
        while True:
            if at.epoch > at.validated and _validation_due(schedule, epochs_done=at.epoch):
                if self.should_stop():
                    return False
                self._log("val", self.validate(at.epoch))
                at.validated = at.epoch
                self.save()
            if at.epoch == schedule.epochs:
                return True
            if not self._rest_of_epoch(feed):
                self.save()
                return False
            self._end_epoch()

    def _rest_of_epoch(self, feed: Iterator[Batch]) -> bool:
        """Whether it came to its end, and was not stopped."""
        at, what = self.at, f"epoch {self.at.epoch + 1}/{self.spec.schedule.epochs}"
        self.model.train()
        self.memory.begin()
        lr = _set_learning_rate(self.optimizer, self.spec, epoch=at.epoch)
        compiling = at.epoch * self.steps + at.step + 1 == self.compiling
        if compiling:
            self.progress(_COMPILING, 0, 1)
        else:
            self.progress(what, at.step, self.steps)
        idle_since = moment(self.device)
        size = self.spec.schedule.batch_size
        order = batch_indices(self.train, epoch=at.epoch, batch_size=size, shuffle=True)[at.step :]
        with watching(self.memory, self.model, every_s=1.0), self._fetching():
            for indices, batch in zip(order, feed, strict=False):  # which goes on with the next epoch
                if self.should_stop():
                    return False
                with nullcontext() if self.ranks.share(len(indices)) else self.ranks.idle():
                    idle_since = self._step(batch, indices, lr=lr, idle_since=idle_since)
                if compiling:
                    self.progress(_COMPILING, 1, 1)
                    compiling = False
                self.progress(what, at.step, self.steps)
        return True

    def _step(self, batch: Batch, indices: Sequence[int], *, lr: float, idle_since: Moment) -> Moment:
        """When it will have ended. ``batch`` is this rank's part of the samples ``indices``."""
        at, began = self.at, moment(self.device)
        rank = (self.ranks.index,) if self.ranks.index else ()
        # So no generator's state needs keeping; what is built in draws by sample.
        torch.manual_seed(derive_seed(self.seed, "step", at.epoch, at.step, *rank))
        with reproducible(self.device, engine=self.engine):
            said = train_step(
                self.model,
                self.prefetcher.ready(batch),
                criterion=self.criterion,
                optimizer=self.optimizer,
                clip=self.spec.schedule.grad_clip_norm,
                precision=self.spec.execution.precision,
                ranks=self.ranks,
            )
        span = Span(idle_since=idle_since, began=began, ended=moment(self.device))
        at.step += 1
        frames = tuple(self.train.frames.ids[index] for index in indices)
        self.pending.add(at.epoch * self.steps + at.step, said, lr=lr, frames=frames, span=span)
        if self.ranks.any(self.pending.due):  # one may say that a step diverged: all hear it
            self._fetch()
        return span.ended

    @contextmanager
    def _fetching(self) -> Iterator[None]:
        """Fetches what is pending at the end, and after an error: if a step before diverged, that is the cause.

        Not where a rank is lost: the device may wait for it in the steps that it was told to do.
        """
        try:
            yield
        except RankLost:
            raise
        except BaseException:
            self._fetch()
            raise
        self._fetch()

    def _fetch(self) -> None:
        if self.pending:
            self.at.peak_mem_mb = max(self.at.peak_mem_mb, self.memory.peak_mb())
        for step, metrics in self.pending.fetch():
            self.at.add(metrics, timed=step != self.compiling)
            self.sink.log(step, {f"train/{name}": value for name, value in metrics.items()})

    def _end_epoch(self) -> None:
        means = self.at.means() | {"peak_mem_mb": self.at.peak_mem_mb}
        if self.device.type == "cuda":
            means["peak_mem_torch_mb"] = torch.cuda.max_memory_allocated(self.device) / 2**20
        self.at.begin_epoch()
        self._log("epoch", means)
        self.save()
        if self.engine == "minkowski":
            give_back_freed_memory()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # gives torch's cache back to the sparse library, which allocates beside it

    def _log(self, group: str, metrics: Mapping[str, float]) -> None:
        """Of all epochs that are done."""
        self.sink.log(self.at.epoch * self.steps, {f"{group}/{name}": value for name, value in metrics.items()})


def _most_loss(loss: LossSpec) -> float:
    """Above which a loss makes no sense: one who guesses has cross entropies and dice terms of less than ten a head."""
    weights = loss.classification + loss.mask_bce + loss.mask_dice * max(1.0, loss.dice_final) + loss.semantic
    return _SENSELESS * max(1.0, weights)


def _validation_due(schedule: ScheduleSpec, *, epochs_done: int) -> bool:
    return epochs_done % schedule.validate_every == 0 or epochs_done == schedule.epochs


def _set_learning_rate(optimizer: torch.optim.Optimizer, spec: Spec, *, epoch: int) -> float:
    lr = learning_rate(spec.schedule, epoch, esam_compat=spec.esam_compat)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr
