"""``ditr query | ls | results rebuild``: reading what runs left."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from ditr.cli.host import make_runs_folder, warn
from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError, ExitCode, in_short
from ditr.paths import runs_dir
from ditr.record.folder import Record, records_in
from ditr.record.views import views_of
from ditr.record.views.limits import DEFAULT_LIMITS, QueryLimits
from ditr.record.views.results import Results, Rows
from ditr.record.views.rows import result_row
from ditr.spec.identity import shown_variant
from ditr.spec.numbers import MOST


class Format(StrEnum):
    """How ``ditr query`` writes its answer."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.command()(query)
    app.command("ls")(list_runs)
    group = typer.Typer(no_args_is_help=True, help="Look after the views of the records: DuckDB's and MLflow's.")
    group.callback()(_group)
    group.command()(rebuild)
    app.add_typer(group, name="results")


def query(
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL",
            help="One SELECT over the tables results, frames, instances, metrics and checks.",
            show_default=False,
        ),
    ],
    format: Annotated[Format, typer.Option(help="How the answer is written.")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option(help="Write the answer to this file instead.")] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=MOST, help="End a query that takes longer.")
    ] = DEFAULT_LIMITS.seconds,
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=16, max=MOST, help="End a query that needs more MiB.")
    ] = DEFAULT_LIMITS.memory_mb,
) -> None:
    """Ask the results in SQL; read-only, no files and no network.

    Tables: `results`, a row a run, evaluation, imported log or check of a spec (`kind`); `frames`, a row a run and
    frame of its evaluation; `instances`, a row a run and ground-truth instance; `metrics`, a row a run, step and name;
    `checks`, a row a check of a spec. The column `run_key` joins them, and `describe results` lists columns.

    Example: `ditr query "select variant, avg(ap50) from results where state = 'finished' group by variant"`
    """
    if out is not None and not out.parent.is_dir():
        fix = "Make it, or name a file in another folder."
        raise DitrError("no such folder to write to", code=Code.QUERY, where=str(out.parent), fix=fix)
    if out is not None and out.is_dir():
        raise DitrError("is a folder", code=Code.QUERY, where=str(out), fix=f"Name a file, such as {out}/rows.{format}")
    results, limits = Results(runs_dir()), QueryLimits(seconds=seconds, memory_mb=memory_mb)
    if format is Format.PARQUET:
        results.query_to_parquet(sql, _parquet_target(out), limits=limits)
        return
    text = _FORMATS[format](results.query(sql, limits=limits))
    if out is not None:
        out.write_text(text)
    else:
        sys.stdout.write(text)


def list_runs() -> None:
    """List runs, evaluations, imported logs and checks, and how far they got."""
    runs = runs_dir()
    rows = [_line(folder) for folder in records_in(runs)]
    if not rows:
        sys.stdout.write(f"no runs in {runs}; start one: ditr run specs/fpn_inject.yaml\n")
        return
    columns = ("run", "kind", "variant", "seed", "state", "ap50", "wall_s", "started_at")
    sys.stdout.write(text_table(columns, rows))


def rebuild() -> None:
    """Make the views anew from the records: results.duckdb, and the MLflow store."""
    make_runs_folder()
    failed = False
    for view in views_of(runs_dir()):
        path = runs_dir() / view.name
        try:
            sys.stdout.write(f"{path}: {view.rebuild()} records\n")
        except Exception as error:  # the other view may be well
            warn(f"{path} is not whole: {in_short(error)}")
            failed = True
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _line(folder: Record) -> tuple[Any, ...]:
    name = folder.path.name
    try:
        row = result_row(folder)
    except DitrError as error:
        return (name, None, None, None, error.what, None, None, None)
    failed = row["failed_checks"]
    state = f"{failed} failed" if failed else row["state"]
    variant = shown_variant(row["variant"], fusion=row["fusion"])
    return (name, row["kind"], variant, row["seed"], state, row["ap50"], row["wall_s"], row["started_at"])


def _group() -> None:
    """Keeps ``rebuild`` a subcommand although it is the only one."""


def _parquet_target(out: Path | None) -> Path | BinaryIO:
    if out is not None:
        return out
    if sys.stdout.isatty():
        raise DitrError(
            "parquet is not text", code=Code.QUERY, fix="Add --out FILE, or redirect: ditr query ... > rows.parquet"
        )
    return sys.stdout.buffer


def _as_table(rows: Rows) -> str:
    return text_table(rows.columns, rows.rows)


def _as_csv(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows.columns)
    writer.writerows(rows.rows)
    return text.getvalue()


def _as_json(rows: Rows) -> str:
    answer = [{name: _json_value(value) for name, value in zip(rows.columns, row, strict=True)} for row in rows.rows]
    return json.dumps(answer, indent=2, default=str) + "\n"


def _json_value(value: Any) -> Any:
    """What JSON can say: it has no NaN and no infinity, and its keys are texts."""
    if isinstance(value, dict):
        return {str(key): _json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


_FORMATS = {Format.TABLE: _as_table, Format.CSV: _as_csv, Format.JSON: _as_json}
