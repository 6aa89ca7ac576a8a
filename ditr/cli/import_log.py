"""``ditr import esam-log``: a training of ESAM beside ditr's own runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ditr.cli.host import open_teller
from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError
from ditr.paths import runs_dir
from ditr.record.metrics import SCORES
from ditr.scannet.import_log import import_log

_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


def register(app: typer.Typer) -> None:
    """Adds the group to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Bring other programs' results into the results table and MLflow.")
    group.callback()(_group)
    group.command("esam-log")(esam_log)
    app.add_typer(group, name="import")


def esam_log(
    logfile: Annotated[
        Path,
        typer.Argument(metavar="LOGFILE", help="mmengine's text log, or vis_data/scalars.json.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the row and its folder; by default the training's own.")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="Data set that the training was validated on; the log does not say.")
    ] = "scannet200_sv",
) -> None:
    """Read a training of ESAM into the results table and MLflow, marked as imported.

    The last validation counts as its result. Importing the same file again replaces its row.

    Example: `ditr import esam-log work_dirs/esam_sv/20250706_205951/vis_data/scalars.json --name esam_paper`
    """
    _require_name("--name", name)
    _require_name("--dataset", dataset)
    with open_teller() as teller:
        placed, result = import_log(logfile, runs=runs_dir(), dataset=dataset, name=name)
        teller.tell(placed.folder)
    sys.stdout.write(text_table(("imported", placed.folder.path.name), _summary(result)))


def _group() -> None:
    """Keeps ``esam-log`` a subcommand although it is the only one."""


def _require_name(option: str, name: str | None) -> None:
    if name is not None and not _NAME.fullmatch(name):
        fix = "Use small letters, digits and _, as in a spec's name."
        raise DitrError(f"{name!r} is no name", code=Code.RUN, where=option, fix=fix)


def _summary(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of result.json what the log's reader may want to compare with the log."""
    values = {name: result[name] for name in ("epochs", *SCORES, "nan_windows")} | result["statistics"]
    return [(name, _text(value)) for name, value in values.items()]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
