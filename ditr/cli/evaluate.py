"""``ditr eval``: a row of results from weights that exist."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ditr.cli.host import in_words, open_host
from ditr.cli.options import Overrides
from ditr.cli.spec_files import SpecFile
from ditr.cli.tables import text_table
from ditr.cli.weight_files import find_weights
from ditr.errors import DitrError, ExitCode, Interrupted
from ditr.machine_errors import as_mistake
from ditr.paths import runs_dir
from ditr.record.metrics import SCORES
from ditr.runner.evaluate_checkpoint import CheckpointEvaluation, evaluate_checkpoint
from ditr.runner.inputs import Selection
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.registry import Registry

STOPPED = "stopped: nothing was recorded; a result of before stays"
STOPPING = b"\nstopping after this frame, nothing will be recorded; once more stops at once\n"
_COLUMNS = (*SCORES, "infer_ms", "peak_mem_mb")


class Split(StrEnum):
    """The frames of a data set."""

    TRAIN = "train"
    VAL = "val"


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("eval")(evaluate)


def evaluate(
    spec: SpecFile,
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="Weights of the spec's whole model: an ESAM .pth, a run's model.safetensors or folder, or a name of"
            " `ditr checkpoint ls`.",
            show_default=False,
            parser=find_weights,
        ),
    ],
    split: Annotated[Split, typer.Option(help="Which frames.")] = Split.VAL,
    frames: Annotated[int | None, typer.Option(min=1, help="Only the first so many.", show_default="all")] = None,
    overrides: Overrides = None,
) -> None:
    """Evaluate weights without training: a row of results beside those of runs (`kind` is eval).

    Asked again for the same weights, frames and spec, it evaluates again and replaces the row. What the spec says about
    training (checkpoint, seeds, schedule but for its batch_size) takes no part.
    """
    registry = Registry()
    loaded = load_spec(spec, registry=registry, overrides=tuple(overrides or ()))
    try:
        evaluated = _evaluate(loaded, checkpoint, Selection(split=split.value, frames=frames), registry=registry)
    except (Interrupted, KeyboardInterrupt):
        typer.echo(STOPPED, err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except DitrError:
        raise
    except Exception as error:
        if mistake := as_mistake(error):
            raise mistake from error
        typer.echo(in_words(error), err=True)
        raise typer.Exit(ExitCode.FAILED) from None
    typer.echo(_summary(evaluated), nl=False)
    if evaluated.error is None:
        return
    if mistake := as_mistake(evaluated.error):
        typer.echo(f"recorded, but its pictures are not drawn: {mistake}", err=True)
        raise typer.Exit(ExitCode.MISTAKE)
    typer.echo(f"recorded, but {in_words(evaluated.error)}\n  traceback: {evaluated.folder.log_file}", err=True)
    raise typer.Exit(ExitCode.FAILED)


def _evaluate(
    loaded: LoadedSpec, checkpoint: Path, selection: Selection, *, registry: Registry
) -> CheckpointEvaluation:
    with open_host(registry, says=STOPPING) as host:
        host.say(f"{loaded.spec.name}: evaluation of {checkpoint}")
        return evaluate_checkpoint(loaded, checkpoint=checkpoint, selection=selection, host=host, runs=runs_dir())


def _summary(evaluated: CheckpointEvaluation) -> str:
    result = evaluated.result
    count = f"{result['n_frames']:,} of {evaluated.split_frames:,}"
    row = (result["split"], count, *(result[name] for name in _COLUMNS), evaluated.folder.path)
    lines = ["\n", text_table(("split", "frames", *_COLUMNS, "folder"), [row])]
    if result["n_frames"] < evaluated.split_frames:
        lines.append(f"only {count} frames: no result of the whole split\n")
    if evaluated.replaced is not None:
        lines.append(f"replaced: the same evaluation of before is in {evaluated.replaced}\n")
    return "".join(lines)
