"""``ditr predict``: the instances of frames with a trained model, as pictures, points and numbers."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ditr.cli.display import open_display
from ditr.cli.evaluate import Split
from ditr.cli.serving import end_when_told
from ditr.cli.spec_files import find_spec
from ditr.cli.tables import text_table
from ditr.cli.weight_files import find_weights
from ditr.errors import Code, DitrError, ExitCode
from ditr.paths import runs_dir
from ditr.record.lookup import find_run
from ditr.record.metrics import SCORES
from ditr.runner.prediction_folder import filling, require_new
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.runner.merging import Show
    from ditr.runner.trained_model import TrainedModel

STOPPED = "stopped: nothing was written; the same command begins anew"
_APART = "WARNING: the merged scenes are not to be trusted, their frames do not agree: {}"
_COUNTS = ("frames", "voxels", "instances", "annotated")


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("predict")(predict)


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CHECKPOINT",
            help="A run, as `ditr view` takes it; or, with --spec, weights: a file, or a name of `ditr checkpoint ls`.",
            show_default=False,
        ),
    ],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A data set of `ditr data ls`.", show_default=False)],
    out: Annotated[Path, typer.Option(help="New folder to write to.", show_default=False)],
    frames: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FRAME]...", help="Frames or whole scenes of it, by their ids.", show_default="all of the split"
        ),
    ] = None,
    split: Annotated[
        Split | None, typer.Option(help="Which frames, where none are named.", show_default="val, or the only one")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(help="Spec that the weights of a CHECKPOINT are of.", show_default="the run's", parser=find_spec),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Show and merge instances from here on.", show_default="the run's best balance, else 0.5"
        ),
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Also merge the frames of each scene to one scene.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Show the merged scene in the browser meanwhile.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of that page.")] = 8080,
    host: Annotated[str, typer.Option(help="Address that it is served on.")] = "localhost",
) -> None:
    """Predict the instances of frames, annotated or not, and write them to a folder.

    Of each frame: `masks/` on its image, `points/` in their instances' colours (PLY), `instances/` with all masks and
    scores (npz), `panels/` as `ditr view --out` draws them. With --merge, of each scene `scenes/`: its instances by
    geometry, as PLY, npz and picture, with their AP where there is ground truth. `result.json` says with what.
    """
    if live and not merge:
        raise DitrError("only a merged scene is shown", code=Code.ENVIRONMENT, where="--live", fix="Add --merge.")
    require_new(out)
    registry = Registry()
    trained = _trained(model, spec, min_score, registry=registry)
    try:
        if live:
            from ditr.report.pages.page import address
            from ditr.report.pages.scene import open_scene_page

            end_when_told()
            with open_scene_page(host, port) as page:
                typer.echo(f"{address(host, port)}  (Ctrl-C ends it)")
                said = _write(trained, source, frames or [], split, out, merge=merge, show=page.show, registry=registry)
                with suppress(KeyboardInterrupt):
                    typer.echo(said)
                    threading.Event().wait()
        else:
            typer.echo(_write(trained, source, frames or [], split, out, merge=merge, show=None, registry=registry))
    except KeyboardInterrupt:
        typer.echo(STOPPED, err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _trained(model: str, spec: Path | None, min_score: float | None, *, registry: Registry) -> TrainedModel:
    from ditr.runner.trained_model import trained_elsewhere, trained_in

    if spec is not None:
        trained = trained_elsewhere(find_weights(model), spec=load_spec(spec, registry=registry).spec)
    elif Path(model).is_file():
        what = "a file of weights does not say which model they are of"
        fix = "Name the spec that they were trained with, such as: --spec specs/baseline.yaml"
        raise DitrError(what, code=Code.CHECKPOINT, where=model, fix=fix)
    else:
        trained = trained_in(find_run(model, runs=runs_dir()))
    return trained if min_score is None else replace(trained, best_score=min_score)


def _write(
    trained: TrainedModel,
    source: str,
    frames: list[str],
    split: Split | None,
    out: Path,
    *,
    merge: bool,
    show: Show | None,
    registry: Registry,
) -> str:
    """Fills ``out`` and returns what to say of it."""
    from ditr.data_check.screening import frames_apart
    from ditr.runner.merging import Merging
    from ditr.runner.predictions import write_predictions
    from ditr.runner.predictor import Predictor
    from ditr.runner.selection import select

    with open_display() as display:
        progress = display.progress
        selection = select(
            source, frames, split=None if split is None else split.value, registry=registry, progress=progress
        )
        predictor = Predictor(
            trained, dataset=source, selection=selection, registry=registry, progress=progress, say=display.say
        )
        apart = frames_apart(source, registry=registry) if merge else ()
        for line in apart:
            display.say(_APART.format(line))
        with filling(out) as part:
            merging = Merging(predictor, part, show=show, apart=apart) if merge else None
            result = write_predictions(predictor, part, merging=merging, progress=progress)
    return "\n".join([_summary(result), *(_APART.format(line) for line in apart), str(out)])


def _summary(result: dict[str, Any]) -> str:
    """Frames a second; a row a scene."""
    speed = f"{result['frames_per_s']:.2f} a second, the model alone {result['model_frames_per_s']:.2f}"
    count = len(result["frames"])
    lines = [f"{count} frame{'' if count == 1 else 's'}, {speed}"]
    if scenes := result.get("scenes"):
        rows = [_row(name, facts, facts["scores"]) for name, facts in scenes.items()]
        if len(scenes) > 1:
            whole = {name: sum(facts[name] or 0 for facts in scenes.values()) for name in _COUNTS}
            rows.append(_row("all", whole, result["scene_scores"]))
        lines += ["", text_table(("scene", *_COUNTS, *SCORES), rows)]
    return "\n".join(lines).rstrip()


def _row(name: str, facts: dict[str, Any], scores: dict[str, Any] | None) -> tuple[Any, ...]:
    return (name, *(facts[count] for count in _COUNTS), *((scores or {}).get(score) for score in SCORES))
