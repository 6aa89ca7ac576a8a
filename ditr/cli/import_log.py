"""``ditr import esam-log``: a training of ESAM beside ditr's own runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError
from ditr.paths import runs_dir
from ditr.scannet.import_log import Imported, import_log

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
    imported = import_log(logfile, runs=runs_dir(), dataset=dataset, name=name)
    sys.stdout.write(text_table(("imported", f"mmengine's {imported.log.kind}"), _summary(imported)))


def _group() -> None:
    """Keeps ``esam-log`` a subcommand although it is the only one."""


def _require_name(option: str, name: str | None) -> None:
    if name is not None and not _NAME.fullmatch(name):
        fix = "Use small letters, digits and _, as in a spec's name."
        raise DitrError(f"{name!r} is no name", code=Code.RUN, where=option, fix=fix)


def _summary(imported: Imported) -> list[tuple[str, str]]:
    log, result = imported.log, imported.result
    statistics = result["statistics"]
    of = f" of {log.facts.max_epochs}" if log.facts.max_epochs else ""
    scores = "  ".join(_score(result[name]) for name in ("ap", "ap50", "ap25"))
    rows = [
        ("folder", str(imported.folder.path)),
        ("epochs", f"{_text(result['epochs'])}{of}"),
        ("windows", str(len(log.windows))),
        ("NaN windows", f"{_text(result['nan_windows'])}{_each(statistics)}"),
        ("validations", str(len(log.validations))),
        ("last AP, AP50, AP25", scores),
        ("LR first, last", f"{_text(statistics['lr_first'])}, {_text(statistics['lr_last'])}"),
        ("LR curve as in ESAM", imported.lr_curve),
    ]
    if log.superseded:
        rows.append(("made again after resuming", f"{log.superseded} records"))
    if log.cut:
        rows.append(("cut off, left out", f"{log.cut} lines"))
    return rows


def _each(statistics: dict[str, float | None]) -> str:
    prefix = "nan_windows/"
    counts = (f"{name.removeprefix(prefix)} {count}" for name, count in statistics.items() if name.startswith(prefix))
    told = ", ".join(counts)
    return f" ({told})" if told else ""


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
