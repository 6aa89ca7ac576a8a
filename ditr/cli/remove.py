"""``ditr rm``: records, replaced ones and what killed processes left."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ditr.cli.host import open_teller
from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError, ExitCode
from ditr.paths import runs_dir
from ditr.record.removal import records_called, replaced_records, unfinished_work


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("rm")(remove)


def remove(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECORD]...", help="Folders of runs, evaluations, checks or imported logs."),
    ] = None,
    replaced: Annotated[
        bool, typer.Option("--replaced", help="All that a newer one of the same took the place of.")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Drafts and files that killed processes left half done.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove records for good; what is to go is said first, with its size. The views forget it.

    A run that was stopped is not unfinished in this sense: `ditr run` goes on with it.

    Example: `ditr rm --replaced --unfinished`
    """
    runs = runs_dir()
    if not (names or replaced or unfinished):
        fix = "Name folders of `ditr ls`, or give --replaced or --unfinished."
        raise DitrError("nothing to remove was named", code=Code.RUN, fix=fix)
    things = (
        *records_called(runs, names or ()),
        *(replaced_records(runs) if replaced else ()),
        *(unfinished_work(runs) if unfinished else ()),
    )
    if not things:
        typer.echo("there is nothing of that")
        return
    rows = [(thing.what, f"{thing.size_bytes / 2**20:.1f}", thing.path) for thing in things]
    typer.echo(text_table(("what", "MiB", "path"), rows), nl=False)
    if not yes:
        ask(len(things))
    with open_teller():
        for thing in things:
            thing.remove()
    typer.echo(f"removed {len(things)}, {sum(thing.size_bytes for thing in things) / 2**20:.1f} MiB")


def ask(count: int) -> None:
    """Goes on where the user says so; ends the command otherwise, and raises DitrError where nobody is there."""
    if not sys.stdin.isatty():
        raise DitrError("nothing was removed: nobody can be asked here", code=Code.RUN, fix="Add --yes.")
    if not typer.confirm(f"remove {'it' if count == 1 else f'these {count}'} for good?"):
        typer.echo("nothing was removed")
        raise typer.Exit(ExitCode.DONE)
