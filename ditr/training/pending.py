"""Numbers of steps that still lie on the device: each look at one would wait for all that the device has to do."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ditr.model.injection import require_two_voxels
from ditr.model.moments import Moment, ms_between
from ditr.training.divergence import DivergedError
from ditr.training.step import StepNumbers


@dataclass(frozen=True, kw_only=True)
class Span:
    """One step on the device."""

    idle_since: Moment
    """When the step before it was done."""
    began: Moment
    """When its batch had been read and the device was free for it."""
    ended: Moment


@dataclass(frozen=True, kw_only=True)
class _Step:
    number: int
    frames: tuple[str, ...]
    values: Tensor
    """(K,): loss, norm, terms, others, in the order of ``names``."""
    names: tuple[str, ...]
    terms: tuple[str, ...]
    known: Mapping[str, float]
    span: Span


class PendingSteps:
    """Steps in their order, from when the device was told to do them until their numbers are fetched, all at once.

    Parameters
    ----------
    every_s: how long the first of them may wait; 0 where a look costs nothing.
    most_loss: of the model's own terms; above it a training has diverged.
    """

    def __init__(self, *, every_s: float, most_loss: float) -> None:
        self._every_s = every_s
        self._most_loss = most_loss
        self._steps: list[_Step] = []
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def due(self) -> bool:
        """Whether the first has waited for long enough."""
        return bool(self._steps) and time.monotonic() - self._since >= self._every_s

    def add(self, number: int, said: StepNumbers, *, lr: float, frames: tuple[str, ...], span: Span) -> None:
        """A step that the device was told to do."""
        if not self._steps:
            self._since = time.monotonic()
        numbers = {"loss": said.loss, **said.terms, **said.others, "grad_norm": said.grad_norm}
        self._steps.append(
            _Step(
                number=number,
                frames=frames,
                values=torch.stack([value.float() for value in numbers.values()]),  # so that few tensors wait
                names=tuple(numbers),
                terms=tuple(said.terms),
                known={**said.known, "lr": lr},
                span=span,
            )
        )

    def fetch(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Number and metrics of each step, in order; none of them is pending any more.

        Raises
        ------
        DivergedError: the loss or the gradient of a step is not finite, or the model's loss makes no sense any more.
        DitrError: a norm of 2D features was over one voxel. Either is of the first such step, after all before it.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        values = iter(torch.cat([step.values for step in steps]).tolist())
        for step in steps:
            metrics = {name: next(values) for name in step.names}
            require_two_voxels(metrics, where=", ".join(step.frames))
            self._require_sense(step, metrics)
            span = step.span
            data_ms, step_ms = ms_between(span.idle_since, span.began), ms_between(span.began, span.ended)
            yield step.number, {**metrics, **step.known, "data_ms": data_ms, "step_ms": step_ms}

    def _require_sense(self, step: _Step, metrics: dict[str, float]) -> None:
        own = metrics["inst_loss"] + metrics["seg_loss"]
        for name, what in (("loss", "loss"), ("grad_norm", "gradient's norm")):
            if not math.isfinite(metrics[name]) or own > self._most_loss:
                terms = ", ".join(f"{term} {metrics[term]:g}" for term in step.terms)
                raise DivergedError(
                    f"the {what} is {metrics[name]:g}; terms: {terms}",
                    number=step.number,
                    frames=step.frames,
                    metrics={**metrics, **step.known},
                )
