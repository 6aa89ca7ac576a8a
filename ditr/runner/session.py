"""One run from its inputs to its files: fit, evaluate, write."""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ditr.errors import Code, DitrError, Interrupted
from ditr.files import write_text
from ditr.progress import Progress
from ditr.record.folder import Record
from ditr.record.provenance import code_changed
from ditr.record.recording import Recording
from ditr.record.views.teller import Teller
from ditr.runner.execution import how, pick_device
from ditr.runner.inputs import Inputs, LoadedWeights, build_model, prepare
from ditr.runner.outputs import write_provenance, write_result
from ditr.runner.plan import PlannedRun
from ditr.runner.stop import StopSignal
from ditr.spec.dump import to_yaml
from ditr.spec.execution import engine_of
from ditr.spec.identity import spec_hash
from ditr.spec.models import Spec
from ditr.spec.problems import shown_path
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    import torch

    from ditr.evaluation.evaluate import Evaluation
    from ditr.model.esam import EsamSingleView
    from ditr.training.fit import FitResult

Draw = Callable[["Record", "Evaluation"], None]
"""Draws prediction panels and curves into the run folder; passed in, so that the runner knows no plots."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What runs on a machine share."""

    registry: Registry
    progress: Progress
    say: Callable[[str], None]
    stop: StopSignal
    draw: Draw
    teller: Teller
    """Takes records that changed."""


class Session:
    """One stretch of work on a run, from its start or its saved state to its end or the user's stop."""

    def __init__(self, planned: PlannedRun, *, recording: Recording, host: Host) -> None:
        self.recording = recording
        self._planned = planned
        self._host = host

    def work(self) -> None:
        """Trains, evaluates and writes the result.

        Raises
        ------
        Interrupted: the user asked to stop; everything done so far is saved.
        DitrError: what the run's key is of has changed since it was planned, or something that the run needs is wrong.
        """
        spec, folder, host = self._planned.spec, self._planned.folder, self._host
        self._require_key()
        write_text(folder.spec, to_yaml(spec))
        device = pick_device(spec)
        use_cores(device)
        seed, progress = self._planned.seed, host.stop.stopping(host.progress)
        inputs = prepare(spec, seed=seed, registry=host.registry, device=device, progress=progress, say=self._say)
        self.recording.note_steps(spec.schedule.epochs * inputs.steps_of_an_epoch(spec))
        channels = inputs.feature_channels
        model, start = build_model(spec, seed=seed, registry=host.registry, feature_channels=channels)
        for line in (*_start_lines(start), f"{count_weights(model) / 1e6:.2f} M weights, on {device} with {how(spec)}"):
            self._say(f"  {line}")
        if device.type == "cuda" and engine_of(spec) == "triton" and model.uncaptured:
            named = ", ".join(model.uncaptured)
            self._say(f"  training steps are not captured: {named} reads what is inside the backbone (fuse_voxels)")
        facts = write_provenance(self._planned, inputs=inputs, weights={"start_weights": start}, device=device)
        if code_changed(facts):
            self._say(
                "  begun with other code than runs now: provenance.json names both, `ditr compare` refuses the run"
            )
        host.teller.tell(folder)
        fitted, evaluation = self._train(model, inputs, device)
        from ditr.weights.saving import save_weights

        save_weights(model, folder.weights)
        params = count_weights(model)
        write_result(self._planned, inputs=inputs, evaluation=evaluation, fitted=fitted, params=params, facts=facts)
        host.draw(folder, evaluation)  # last: a picture that fails costs no number

    def _require_key(self) -> None:
        """A job of a queue is a process of its own, which reads the user's code and registry when it starts."""
        if spec_hash(self._planned.spec, registry=self._host.registry) != self._planned.spec_hash:
            what = (
                "code of a fusion part or a 2D source, or an entry of the registry, has changed since this was planned"
            )
            raise DitrError(what, code=Code.RUN, where=str(self._planned.folder.path), fix="call the command once more")

    def _train(self, model: EsamSingleView, inputs: Inputs, device: torch.device) -> tuple[FitResult, Evaluation]:
        """Fits, and evaluates the final weights; the last validation is that evaluation if this session did it."""
        from ditr.training.divergence import DivergedError, save_step
        from ditr.training.fit import fit
        from ditr.training.state import TrainingState

        spec, host = self._planned.spec, self._host
        progress = host.stop.stopping(host.progress)
        last: dict[int, Evaluation] = {}

        def validate(epochs_done: int) -> Mapping[str, float]:
            last.clear()
            final = epochs_done == spec.schedule.epochs
            last[epochs_done] = assess(
                model, inputs, spec=spec, device=device, progress=progress, scores_only=not final
            )
            return asdict(last[epochs_done].scores) | last[epochs_done].statistics

        shutil.rmtree(self._planned.folder.diverged, ignore_errors=True)  # of an earlier session
        try:
            fitted = fit(
                model,
                train=inputs.trained_on,
                spec=spec,
                seed=self._planned.seed,
                device=device,
                sink=_Sink(self, steps=inputs.steps_of_an_epoch(spec)),
                state=TrainingState(self._planned.folder.training_state),
                encode=inputs.encode,
                validate=validate,
                progress=host.progress,
                should_stop=host.stop,
            )
        except DivergedError as error:
            save_step(
                error, self._planned.folder.diverged, samples=inputs.trained_on, batch_size=spec.schedule.batch_size
            )
            error.fix += f"\n  its batch is in {self._planned.folder.diverged}; to come to it again: {self._command()}"
            raise
        if not fitted.finished:
            raise Interrupted
        if fitted.epochs_done not in last:
            validate(fitted.epochs_done)
        return fitted, last[fitted.epochs_done]

    def _command(self) -> str:
        """What goes on with this run, from its last saved state, in a shell."""
        spec = shlex.quote(shown_path(self._planned.folder.spec))
        return f"ditr run {spec} --set 'seeds=[{self._planned.seed}]'"

    def log(self, step: int, metrics: Mapping[str, float], *, epoch: int) -> None:
        """Keeps the metrics; at the end of an epoch and of a validation, says them and tells the views."""
        self._planned.folder.log(step, metrics)
        if "epoch/loss" in metrics:
            self._say(_epoch_line(epoch, self._planned.spec.schedule.epochs, metrics))
        if "val/ap50" in metrics:
            self._say(_validation_line(epoch, metrics))
        if "epoch/loss" in metrics or "val/ap50" in metrics:
            self._host.teller.tell(self._planned.folder)

    def rewind(self, step: int, metrics: Mapping[str, float]) -> None:
        """Forgets what an earlier session logged from this point on."""
        self._planned.folder.rewind_metrics(step, metrics)

    def _say(self, line: str) -> None:
        self._host.say(line)
        self._planned.folder.append_log(line)


def assess(
    model: EsamSingleView,
    inputs: Inputs,
    *,
    spec: Spec,
    device: torch.device,
    progress: Progress,
    scores_only: bool = False,
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
    )


class _Sink:
    """The metric sink of a training: the first row of a resumed session replaces what was logged after the save."""

    def __init__(self, session: Session, *, steps: int) -> None:
        self._session = session
        self._steps = steps
        self._fresh = True

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._fresh:
            self._session.rewind(step, metrics)
            self._fresh = False
        self._session.log(step, metrics, epoch=math.ceil(step / self._steps))


def use_cores(device: torch.device) -> None:
    """One thread a core this process may use, unless OMP_NUM_THREADS says otherwise; recorded in the provenance."""
    import torch

    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))


def count_weights(model: EsamSingleView) -> int:
    """Numbers in the model that training changes."""
    return sum(weight.numel() for weight in model.parameters())


def _start_lines(start: LoadedWeights | None) -> tuple[str, ...]:
    return ("no checkpoint: all weights start fresh",) if start is None else start.lines()


def _epoch_line(epoch: int, epochs: int, metrics: Mapping[str, float]) -> str:
    parts = [
        f"loss {metrics['epoch/loss']:.4f}",
        f"lr {metrics['epoch/lr']:.2e}",
        f"{metrics['epoch/step_ms']:.0f} ms a step",
        f"{metrics['epoch/data_ms']:.0f} ms waiting for data",
        f"{metrics['epoch/peak_mem_mb']:.0f} MiB",
    ]
    return f"  epoch {epoch}/{epochs}: " + ", ".join(parts)


def _validation_line(epoch: int, metrics: Mapping[str, float]) -> str:
    scores = ", ".join(f"{name} {metrics['val/' + name]:.4f}" for name in ("ap", "ap50", "ap25"))
    return f"  validation after epoch {epoch}: {scores}"
