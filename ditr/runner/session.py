"""One run from its inputs to its files: fit, evaluate, write."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from ditr.errors import Code, DitrError, Interrupted
from ditr.progress import Progress
from ditr.ranks import ALONE, Ranks
from ditr.runner.account import Account
from ditr.runner.execution import pick_device
from ditr.runner.host import Host
from ditr.runner.inputs import Inputs, build_model, prepare
from ditr.runner.plan import PlannedRun
from ditr.spec.identity import spec_hash
from ditr.spec.models import Spec

if TYPE_CHECKING:
    import torch

    from ditr.evaluation.evaluate import Evaluation
    from ditr.model.esam import EsamSingleView
    from ditr.training.fit import FitResult


class Session:
    """One stretch of work on a run, from its start or its saved state to its end or the user's stop.

    All ranks that make the run do the same work; what is told of it goes to ``account``.
    """

    def __init__(self, planned: PlannedRun, *, account: Account, host: Host) -> None:
        self.planned = planned
        self.account = account
        self._host = host

    def work(self) -> None:
        """Trains, evaluates and writes the result.

        Raises
        ------
        Interrupted: the user asked to stop; everything done so far is saved.
        DitrError: what the run's key is of has changed since it was planned, or something that the run needs is wrong.
        """
        spec, seed, host, account = self.planned.spec, self.planned.seed, self._host, self.account
        self._require_key()
        account.open()
        device = pick_device(spec)
        use_cores(device)
        progress, say = host.stop.stopping(host.progress), account.say
        inputs = host.ranks.in_turn(
            lambda: prepare(spec, seed=seed, registry=host.registry, device=device, progress=progress, say=say)
        )
        channels = inputs.feature_channels
        model, start = build_model(spec, seed=seed, registry=host.registry, feature_channels=channels)
        account.begin(inputs, model=model, start=start, device=device)
        fitted, evaluation = self._train(model, inputs, device)
        account.finish(inputs, model=model, fitted=fitted, evaluation=evaluation)

    def _require_key(self) -> None:
        """A job of a queue is a process of its own, which reads the user's code and registry when it starts."""
        if spec_hash(self.planned.spec, registry=self._host.registry) != self.planned.spec_hash:
            what = (
                "code of a fusion part or a 2D source, or an entry of the registry, has changed since this was planned"
            )
            raise DitrError(what, code=Code.RUN, where=str(self.planned.folder.path), fix="call the command once more")

    def _train(self, model: EsamSingleView, inputs: Inputs, device: torch.device) -> tuple[FitResult, Evaluation]:
        """Fits, and evaluates the final weights; the last validation is that evaluation if this session did it."""
        from ditr.evaluation.postprocess import OutputNoNumber
        from ditr.training.divergence import DivergedError, diverged_after
        from ditr.training.fit import fit
        from ditr.training.state import TrainingState

        spec, host, ranks = self.planned.spec, self._host, self._host.ranks
        progress = host.stop.stopping(host.progress, ranks=ranks)
        last: dict[int, Evaluation] = {}

        def validate(epochs_done: int) -> Mapping[str, float]:
            last.clear()
            final = epochs_done == spec.schedule.epochs
            try:
                last[epochs_done] = assess(
                    model, inputs, spec=spec, device=device, progress=progress, scores_only=not final, ranks=ranks
                )
            except OutputNoNumber as error:
                step, size = epochs_done * inputs.steps_of_an_epoch(spec), spec.schedule.batch_size
                raise diverged_after(step, samples=inputs.trained_on, batch_size=size, where=error.where) from error
            return asdict(last[epochs_done].scores) | last[epochs_done].statistics

        try:
            fitted = fit(
                model,
                train=inputs.trained_on,
                spec=spec,
                seed=self.planned.seed,
                device=device,
                sink=self.account,
                state=TrainingState(self.planned.folder.training_state),
                encode=inputs.encode,
                validate=validate,
                progress=host.progress,
                should_stop=lambda: host.stop.asked_of(ranks),
                ranks=ranks,
            )
            if not fitted.finished:
                raise Interrupted
            if fitted.epochs_done not in last:
                validate(fitted.epochs_done)
        except DivergedError as error:
            self.account.diverge(error, inputs=inputs)
            raise
        return fitted, last[fitted.epochs_done]


def assess(
    model: EsamSingleView,
    inputs: Inputs,
    *,
    spec: Spec,
    device: torch.device,
    progress: Progress,
    scores_only: bool = False,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """The one way in which a model is evaluated, in a training, after it or without one.

    ``scores_only`` leaves out what is for the record alone, frames for pictures and facts about instances: the record
    holds one evaluation, a training makes one at every validation.
    """
    from ditr.evaluation.evaluate import evaluate

    return evaluate(
        model,
        inputs.evaluated,
        spec=spec.evaluation,
        device=device,
        encode=inputs.encode,
        workers=spec.execution.workers,
        batch_size=spec.schedule.batch_size,
        precision=spec.execution.precision,
        progress=progress,
        keep=0 if scores_only else spec.tracking.panels,
        facts=not scores_only,
        esam_compat=spec.esam_compat,
        ranks=ranks,
    )


def use_cores(device: torch.device) -> None:
    """One thread a core this process may use, unless OMP_NUM_THREADS says otherwise; recorded in the provenance."""
    import torch

    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
