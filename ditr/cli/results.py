"""``ditr query | ls | results rebuild``: reading what runs left."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from ditr.cli.host import make_runs_folder
from ditr.cli.out_file import out_file
from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError, ExitCode, in_short
from ditr.files import write_text
from ditr.machine_errors import as_mistake
from ditr.paths import runs_dir
from ditr.record.folder import Record, records_in
from ditr.record.views import View, views_of
from ditr.record.views.limits import DEFAULT_LIMITS, QueryLimits
from ditr.record.views.results import Results, Rows
from ditr.record.views.rows import result_row
from ditr.runner.launchers.standing import held_tickets
from ditr.runner.launchers.tickets import Ticket
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
    app.command()(sync)
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
    if out is not None:
        out = out_file(out, code=Code.QUERY, such_as=f"rows.{format}")
    results, limits = Results(runs_dir()), QueryLimits(seconds=seconds, memory_mb=memory_mb)
    if format is Format.PARQUET:
        results.query_to_parquet(sql, _parquet_target(out), limits=limits)
        return
    text = _FORMATS[format](results.query(sql, limits=limits))
    if out is not None:
        write_text(out, text)
    else:
        sys.stdout.write(text)


def list_runs() -> None:
    """List runs, evaluations, imported logs and checks, and how far they got."""
    runs = runs_dir()
    given = {ticket.name: ticket for ticket in held_tickets(runs).values()}
    records = records_in(runs)
    rows = [_line(folder, ticket=given.pop(folder.path.name, None)) for folder in records]
    rows += [
        (ticket.name, "run", ticket.variant, ticket.seed, _where(ticket), *[None] * 3) for ticket in given.values()
    ]
    if not rows:
        sys.stdout.write(f"no runs in {runs}; start one: ditr run specs/fpn_inject.yaml\n")
        return
    columns = ("run", "kind", "variant", "seed", "state", "ap50", "wall_s", "started_at")
    sys.stdout.write(text_table(columns, rows))


def sync() -> None:
    """Bring the views up to date with the records: results.duckdb, and MLflow's file or server.

    Every command that makes records does so at its end; this is for what it said that a view lacks.
    """

    def catch_up(view: View) -> str:
        view.catch_up()
        return "up to date"

    _for_each_view(catch_up)


def rebuild() -> None:
    """Make the views anew from the records: results.duckdb, and MLflow's file, or these records' runs on its server."""
    _for_each_view(lambda view: f"{view.rebuild()} records")


def _for_each_view(do: Callable[[View], str]) -> None:
    """Says what came of it; one view's trouble is not another's."""
    make_runs_folder()
    code = ExitCode.DONE
    for view in views_of(runs_dir()):
        try:
            sys.stdout.write(f"{view.name}: {do(view)}\n")
        except Exception as error:
            mistake = error if isinstance(error, DitrError) else as_mistake(error)
            typer.echo(f"{view.name} is not whole: {mistake or in_short(error)}", err=True)
            code = max(code, ExitCode.MISTAKE if mistake else ExitCode.FAILED)
    if code:
        raise typer.Exit(code)


def _line(folder: Record, *, ticket: Ticket | None) -> tuple[Any, ...]:
    name = folder.path.name
    try:
        row = result_row(folder)
        folder.require_all_whole()
    except DitrError as error:
        return (name, None, None, None, error.what, None, None, None)
    failed = row["failed_checks"]
    state = f"{failed} failed" if failed else row["state"]
    if ticket is not None and state != "running":
        state = _where(ticket)
    variant = shown_variant(row["variant"], fusion=row["fusion"])
    return (name, row["kind"], variant, row["seed"], state, row["ap50"], row["wall_s"], row["started_at"])


def _where(ticket: Ticket) -> str:
    return f"queued on {ticket.launcher}" + (f", job {ticket.job}" if ticket.job else "")


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
