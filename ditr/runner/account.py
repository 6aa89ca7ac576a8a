"""What a run leaves as it goes: its record, its log, views that are told. Of ranks the one that leads writes."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from ditr.files import write_text
from ditr.record.provenance import code_changed
from ditr.record.recording import Recording
from ditr.runner.disk_room import require_room
from ditr.runner.execution import how
from ditr.runner.host import Host
from ditr.runner.inputs import Inputs, LoadedWeights
from ditr.runner.outputs import write_provenance, write_result
from ditr.runner.plan import PlannedRun
from ditr.spec.dump import to_yaml
from ditr.spec.execution import engine_of
from ditr.spec.problems import shown_path

if TYPE_CHECKING:
    import torch

    from ditr.evaluation.evaluate import Evaluation
    from ditr.model.esam import EsamSingleView
    from ditr.training.divergence import DivergedError
    from ditr.training.fit import FitResult


class Account(Protocol):
    """What a session tells of itself, in this order."""

    def open(self) -> None:
        """It begins."""

    def say(self, line: str) -> None:
        """To whoever looks, now or later."""

    def begin(
        self, inputs: Inputs, *, model: EsamSingleView, start: LoadedWeights | None, device: torch.device
    ) -> None:
        """The training begins, with the weights ``start`` if with any, or goes on."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """As a ``MetricSink``."""

    def diverge(self, error: DivergedError, *, inputs: Inputs) -> None:
        """The training ended so."""

    def finish(self, inputs: Inputs, *, model: EsamSingleView, fitted: FitResult, evaluation: Evaluation) -> None:
        """The model is trained and evaluated."""


class NoAccount:
    """Of a rank that does not lead: nothing."""

    def open(self) -> None: ...

    def say(self, line: str) -> None: ...

    def begin(
        self, inputs: Inputs, *, model: EsamSingleView, start: LoadedWeights | None, device: torch.device
    ) -> None: ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def diverge(self, error: DivergedError, *, inputs: Inputs) -> None: ...

    def finish(self, inputs: Inputs, *, model: EsamSingleView, fitted: FitResult, evaluation: Evaluation) -> None: ...


class RecordAccount:
    """Written into the run's folder."""

    def __init__(self, planned: PlannedRun, *, recording: Recording, host: Host) -> None:
        self.recording = recording
        self._planned, self._spec, self._folder, self._host = planned, planned.spec, planned.folder, host
        self._fresh = True
        self._steps = 1

    def open(self) -> None:
        write_text(self._folder.spec, to_yaml(self._spec))
        shutil.rmtree(self._folder.diverged, ignore_errors=True)  # of an earlier session

    def say(self, line: str) -> None:
        self._host.say(line)
        self._folder.append_log(line)

    def begin(
        self, inputs: Inputs, *, model: EsamSingleView, start: LoadedWeights | None, device: torch.device
    ) -> None:
        """Raises DitrError if the disk cannot hold what the training writes, or it goes on with other files than it was
        begun with."""
        require_room(self._folder, model=model)
        spec, ranks = self._spec, self._host.ranks
        self._steps = inputs.steps_of_an_epoch(spec)
        self.recording.note_steps(spec.schedule.epochs * self._steps)
        where = f"on {device} with {how(spec)}" + (f", on {ranks.count} ranks" if ranks.count > 1 else "")
        for line in (*_start_lines(start), f"{count_weights(model) / 1e6:.2f} M weights, {where}"):
            self.say(f"  {line}")
        if device.type == "cuda" and engine_of(spec) == "triton" and model.uncaptured:
            named = ", ".join(model.uncaptured)
            self.say(f"  training steps are not captured: {named} reads what is inside the backbone (fuse_voxels)")
        weights = {"start_weights": start}
        self._facts = write_provenance(self._planned, inputs=inputs, weights=weights, device=device, ranks=ranks.count)
        if code_changed(self._facts):
            self.say(
                "  begun with other code than runs now: provenance.json names both, `ditr compare` refuses the run"
            )
        self._host.teller.tell(self._folder)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keeps the metrics; at the end of an epoch and of a validation, says them and tells the views."""
        if self._fresh:  # what an earlier session logged after its last save is logged again
            self._folder.rewind_metrics(step, metrics)
            self._fresh = False
        self._folder.log(step, metrics)
        epoch = math.ceil(step / self._steps)
        if "epoch/loss" in metrics:
            self.say(_epoch_line(epoch, self._spec.schedule.epochs, metrics))
        if "val/ap50" in metrics:
            self.say(_validation_line(epoch, metrics))
        if "epoch/loss" in metrics or "val/ap50" in metrics:
            self._host.teller.tell(self._folder)

    def diverge(self, error: DivergedError, *, inputs: Inputs) -> None:
        from ditr.training.divergence import save_step

        folder = self._folder.diverged
        save_step(error, folder, samples=inputs.trained_on, batch_size=self._spec.schedule.batch_size)
        error.fix += f"\n  its batch is in {folder}; to come to it again: {self._command()}"

    def finish(self, inputs: Inputs, *, model: EsamSingleView, fitted: FitResult, evaluation: Evaluation) -> None:
        from ditr.weights.saving import save_weights

        save_weights(model, self._folder.weights)
        write_result(
            self._planned,
            inputs=inputs,
            evaluation=evaluation,
            fitted=fitted,
            params=count_weights(model),
            facts=self._facts,
        )
        self._host.draw(self._folder, evaluation)  # last: a picture that fails costs no number

    def _command(self) -> str:
        """What goes on with this run, from its last saved state, in a shell."""
        spec = shlex.quote(shown_path(self._folder.spec))
        return f"ditr run {spec} --set 'seeds=[{self._planned.seed}]'"


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
