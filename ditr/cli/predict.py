"""``ditr predict``: the instances of frames with a trained model, as pictures, points and numbers."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ditr.cli.display import Display, open_display
from ditr.cli.evaluate import Split
from ditr.errors import Code, DitrError
from ditr.files import write_json
from ditr.paths import runs_dir
from ditr.record.lookup import find_run
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.runner.predictor import Predictor
    from ditr.runner.trained_model import TrainedModel


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("predict")(predict)


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CHECKPOINT",
            help="A run, as `ditr view` takes it; or, with --spec, a file of weights.",
            show_default=False,
        ),
    ],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A data set of `ditr data ls`.", show_default=False)],
    frames: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FRAME]...", help="Frames or whole scenes of it, by their ids.", show_default="all of the split"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="New folder to write to.", show_default=False)] = ...,  # type: ignore[assignment]
    split: Annotated[Split, typer.Option(help="Which frames, where none are named.")] = Split.VAL,
    spec: Annotated[
        Path | None, typer.Option(help="Spec that the weights of a CHECKPOINT are of.", show_default="the run's")
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Show instances from this score on.", show_default="the run's best balance, else 0.5"
        ),
    ] = None,
) -> None:
    """Predict the instances of frames, which need no annotation, and write them to a folder.

    Of each frame: `masks/` on its image, `points/` in their instances' colours (PLY), `instances/` with all masks and
    scores (npz), `panels/` as `ditr view --out` draws them; `result.json` says with what.
    """
    registry = Registry()
    trained = _trained(model, spec, min_score, registry=registry)
    _make(out)
    with open_display() as display:
        predictor = _predictor(trained, source, frames or [], split, registry=registry, display=display)
        result = _write(predictor, out, display=display)
        write_json(out / "result.json", result)
        display.say(
            f"{len(predictor)} frames, {result['frames_per_s']:.2f} a second"
            f" (the model alone {result['model_frames_per_s']:.2f})"
        )
        display.say(str(out))


def _trained(model: str, spec: Path | None, min_score: float | None, *, registry: Registry) -> TrainedModel:
    from dataclasses import replace

    from ditr.runner.trained_model import trained_elsewhere, trained_in

    if spec is not None:
        trained = trained_elsewhere(Path(model), spec=load_spec(spec, registry=registry).spec)
    elif Path(model).is_file():
        what = "a file of weights does not say which model they are of"
        fix = "Name the spec that they were trained with, such as: --spec specs/baseline.yaml"
        raise DitrError(what, code=Code.CHECKPOINT, where=model, fix=fix)
    else:
        trained = trained_in(find_run(model, runs=runs_dir()))
    return trained if min_score is None else replace(trained, best_score=min_score)


def _make(out: Path) -> None:
    from ditr.report.prediction_files import FOLDERS

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DitrError("there is something already", code=Code.ENVIRONMENT, where=str(out), fix="Name a new folder.")
    try:
        for kind in FOLDERS:
            (out / kind).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder cannot be made: {error.strerror}"
        raise DitrError(what, code=Code.ENVIRONMENT, where=str(out), fix="Name another folder.") from error


def _predictor(
    trained: TrainedModel, source: str, frames: list[str], split: Split, *, registry: Registry, display: Display
) -> Predictor:
    from ditr.runner.predictor import Predictor
    from ditr.runner.selection import select

    progress = display.progress
    selection = select(source, frames, split=split.value, registry=registry, progress=progress)
    return Predictor(
        trained, dataset=source, selection=selection, registry=registry, progress=progress, say=display.say
    )


def _write(predictor: Predictor, out: Path, *, display: Display) -> dict[str, Any]:
    """Of every frame its files; returns what is in ``result.json``."""
    from ditr.report.prediction_files import write_frame

    trained, total, model_ms = predictor.trained, len(predictor), 0.0
    began = time.monotonic()
    with closing(predictor.predict()) as predicted:
        for done, frame in enumerate(predicted):
            display.progress("predict", done, total)
            write_frame(out, frame.view, frame.found, model=trained.name, best_score=trained.best_score)
            model_ms += frame.infer_ms
    display.progress("predict", total, total)
    return predictor.facts() | {
        "frames_per_s": total / (time.monotonic() - began),
        "model_frames_per_s": 1000 * total / model_ms,
    }
