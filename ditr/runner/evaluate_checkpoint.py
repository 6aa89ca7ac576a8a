"""Evaluates weights that exist, without a training; the result is a row beside those of runs."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditr.catalog import CheckpointFile, pinning_entries
from ditr.errors import Code, DitrError
from ditr.files import write_text
from ditr.record.folder import Record
from ditr.record.recording import Draft, draft
from ditr.runner.account import count_weights
from ditr.runner.execution import how, pick_device, settle_loaded
from ditr.runner.fusion_code import changed_parts
from ditr.runner.host import Host
from ditr.runner.inputs import (
    Inputs,
    LoadedWeights,
    Selection,
    fresh_model,
    load_file,
    prepare,
)
from ditr.runner.outputs import write_provenance, write_result
from ditr.runner.plan import PlannedRecord
from ditr.runner.session import assess, use_cores
from ditr.runner.unchanged import other_features
from ditr.spec.diff import diff
from ditr.spec.dump import to_yaml
from ditr.spec.feature_maps import map_channels
from ditr.spec.identity import evaluation_hash, variant
from ditr.spec.load import LoadedSpec
from ditr.spec.models import Spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.evaluation.evaluate import Evaluation
    from ditr.model.esam import EsamSingleView

_READ_BY_MODEL = ("dataset.name", "features.", "model.", "fusion.")


@dataclass(frozen=True, kw_only=True)
class CheckpointEvaluation:
    """What became of an evaluation."""

    folder: Record
    result: dict[str, Any]
    """As in result.json."""
    split_frames: int
    """Frames of the split, evaluated or not."""
    replaced: Path | None
    """Where the same evaluation of before is now; None if there was none."""
    error: Exception | None
    """What went wrong with the pictures, after the result."""


def evaluate_checkpoint(
    loaded: LoadedSpec, *, checkpoint: Path, selection: Selection, host: Host, runs: Path
) -> CheckpointEvaluation:
    """Evaluates the weights as the spec says; its checkpoint, seeds and schedule take no part.

    It is written as a draft, which then replaces the same evaluation of before, if there was one: whatever goes wrong,
    the result of before stays.

    Parameters
    ----------
    checkpoint: a file of weights that are whole for the spec's model, or a run folder.
    runs: folder of the run folders.

    Raises
    ------
    DitrError: the weights or the data do not fit.
    Interrupted: the user stopped it.
    """
    with draft(runs, name=f"{loaded.spec.name}-eval") as work:
        return _Work(settle_loaded(loaded), draft=work, host=host).run(checkpoint, selection)


def given_weights(checkpoint: Path) -> CheckpointFile:
    """The file to evaluate, with what it is by its content.

    Raises
    ------
    DitrError: no such file, or not the weights of a whole model.
    """
    from ditr.weights.description import describe

    path = Record(checkpoint).weights if checkpoint.is_dir() else checkpoint
    if checkpoint.is_dir() and not path.is_file():
        fix = "Name the folder of a run that has finished, or a file of weights."
        raise _error("no weights of a finished run in this folder", where=checkpoint, fix=fix)
    found = describe(path)
    if found.format is None:
        raise _error(f"these are no weights of this model: {found.reason}", where=path, fix="Name another file.")
    if found.format == "mask3d":
        fix = "Train from it (`checkpoint` in the spec, `ditr run`), or name the weights of a trained model."
        raise _error("a mask3d checkpoint has no decoder, so there is nothing to evaluate", where=path, fix=fix)
    return CheckpointFile(path.resolve(), found.sha256, found.format, key_prefix=found.key_prefix)


def whole_model(spec: Spec, file: CheckpointFile, *, registry: Registry) -> tuple[EsamSingleView, LoadedWeights]:
    """The spec's model on the CPU with all its weights from the file, before any data is read.

    Raises
    ------
    DitrError: the file's weights are not exactly those of the model.
    """
    channels = None
    if features := spec.read_features:
        channels = map_channels(features, registry.features(features.source))
    model = fresh_model(spec, seed=0, feature_channels=channels)
    return model, load_file(model, file, whole=True)


@dataclass
class _Work:
    """One evaluation under way."""

    loaded: LoadedSpec
    draft: Draft
    host: Host

    def run(self, checkpoint: Path, selection: Selection) -> CheckpointEvaluation:
        spec, host = self.loaded.spec, self.host
        progress = host.stop.stopping(host.progress)
        device = pick_device(spec, origins=self.loaded.origins)
        use_cores(device)
        self.say(f"  on {device} with {how(spec)}")
        model, weights = self._load(checkpoint)
        inputs = prepare(
            spec, seed=0, registry=host.registry, device=device, progress=progress, say=self.say, only=selection
        )
        for line in other_features(_features_of_training(weights.file.path), inputs.features):
            self.say(f"  {line}")
        planned, folder = self._planned(inputs, weights), self.draft.folder
        write_text(folder.spec, to_yaml(spec))
        facts = write_provenance(planned, inputs=inputs, weights={"evaluated_weights": weights}, device=device)
        evaluation = assess(model.to(device), inputs, spec=spec, device=device, progress=progress)
        result = write_result(
            planned, inputs=inputs, evaluation=evaluation, fitted=None, params=count_weights(model), facts=facts
        )
        self.say(_count_line(inputs))
        placed = self.draft.finish(self.draft.state(planned.identity(kind="eval", seed=None)))
        error = self._draw(placed.folder, evaluation)
        host.teller.tell(placed.folder)
        return CheckpointEvaluation(
            folder=placed.folder,
            result=result,
            split_frames=inputs.split_frames,
            replaced=placed.replaced,
            error=error,
        )

    def say(self, line: str) -> None:
        self.host.say(line)
        self.draft.folder.append_log(line)

    def _load(self, checkpoint: Path) -> tuple[EsamSingleView, LoadedWeights]:
        spec, registry = self.loaded.spec, self.host.registry
        file = given_weights(checkpoint)
        pinned = bool(pinning_entries(file.sha256, registry=registry))
        model, weights = whole_model(spec, replace(file, pinned=pinned), registry=registry)
        self.say(f"  {weights.report.matched} tensors from {file.path}, all of the model and all of the file")
        for line in (*weights.doubts(), *_trained_otherwise(spec, file.path)):
            self.say(f"  {line}")
        return model, weights

    def _planned(self, inputs: Inputs, weights: LoadedWeights) -> PlannedRecord:
        spec = self.loaded.spec
        count = len(inputs.evaluated)
        digest = evaluation_hash(
            spec,
            registry=self.host.registry,
            weights_sha256=weights.file.sha256,
            split=inputs.split,
            frames=None if count == inputs.split_frames else count,
        )
        return PlannedRecord(
            spec=spec,
            source=self.loaded.path,
            overrides=self.loaded.overrides,
            spec_hash=digest,
            key=digest[:10],
            variant=variant(spec),
            folder=self.draft.folder,
        )

    def _draw(self, folder: Record, evaluation: Evaluation) -> Exception | None:
        """The record is whole: a picture that fails takes nothing from it."""
        try:
            self.host.draw(folder, evaluation)
        except Exception as error:
            with suppress(OSError):  # for which there may be no room either
                folder.append_log(f"drawing failed: {traceback.format_exc()}")
            return error
        return None


def _trained_otherwise(spec: Spec, weights: Path) -> list[str]:
    """What the spec of the run whose weights these are says else about data and model; no fault, but to be known."""
    run = _run_of(weights)
    if run is None or not run.spec.is_file():
        return []
    try:
        trained = run.read_spec()
    except DitrError as error:
        return [f"the spec that they were trained with cannot be compared: {error.what}"]
    differences = diff(trained, spec)
    return changed_parts(run, trained) + [
        f"they were trained with {one.path} {one.first}, here {one.second}"
        for one in differences
        if one.path.startswith(_READ_BY_MODEL) and (spec.read_features or not one.path.startswith("features"))
    ]


def _features_of_training(weights: Path) -> dict[str, Any] | None:
    """As the provenance of the run has it whose weights these are; None of other weights, or without 2D features."""
    run = _run_of(weights)
    return ((run and run.read_provenance()) or {}).get("features")


def _run_of(weights: Path) -> Record | None:
    run = Record(weights.parent.parent)
    return run if weights == run.weights else None


def _count_line(inputs: Inputs) -> str:
    count, whole = len(inputs.evaluated), inputs.split_frames
    frames = f"all {whole:,} frames" if count == whole else f"{count:,} of {whole:,} frames"
    return f"  evaluated {frames} of {inputs.split}"


def _error(what: str, *, where: Path, fix: str) -> DitrError:
    return DitrError(what, code=Code.CHECKPOINT, where=str(where), fix=fix)
