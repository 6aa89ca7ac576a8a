"""``ditr stop`` and ``ditr logs``: runs that wait or run, whatever runs them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ditr.errors import Code, DitrError
from ditr.paths import runs_dir
from ditr.record.folder import records_in
from ditr.runner.launchers.slurm import log_of
from ditr.runner.launchers.standing import match_names, runs_under_way, stop_runs
from ditr.runner.launchers.tickets import JobFiles

_LOOK_S = 0.5
_ASK_S = 5.0
"""Between two looks whether the run is still under way."""


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.command("stop")(stop)
    app.command("logs")(logs)


def stop(
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Folders of runs that wait or run; a * stands for anything."),
    ],
) -> None:
    """Ask runs to save and stop, whatever runs them; those that wait are not begun. `ditr run` goes on with them.

    Example: `ditr stop 'fpn_inject-*'`
    """
    runs = runs_dir()
    under_way = runs_under_way(runs)
    chosen = match_names(names, list(under_way), what="run that waits or runs")
    stop_runs([under_way[name] for name in chosen], runs=runs)
    for name in chosen:
        typer.echo(f"{name}: asked to save and stop")


def logs(
    name: Annotated[
        str, typer.Argument(metavar="RUN", help="Folder of a run; a * stands for anything.", show_default=False)
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
) -> None:
    """Print what a run said; of one that has not begun, what its job said.

    Example: `ditr logs -f 'fpn_inject-s0-*'`
    """
    runs = runs_dir()
    tickets = JobFiles(runs).tickets()
    known = dict.fromkeys([*(folder.path.name for folder in records_in(runs)), *(ticket.name for ticket in tickets)])
    found = match_names([name], list(known), what="run")
    if len(found) > 1:
        raise DitrError(f"{len(found)} runs are called so", code=Code.RUN, fix=f"Name one of: {', '.join(found)}.")
    jobs = {ticket.name: ticket.job for ticket in tickets if ticket.launcher == "slurm"}
    said, shown, asked = 0, Path(), 0.0
    while True:
        ends = not follow
        if follow and time.monotonic() - asked >= _ASK_S:
            asked = time.monotonic()
            ends = found[0] not in runs_under_way(runs)
        path = _log(runs, found[0], job=jobs.get(found[0]))
        said = _print_rest(path, said if path == shown else 0)
        shown = path
        if ends:
            return
        time.sleep(_LOOK_S)


def _log(runs: Path, name: str, *, job: str | None) -> Path:
    """Of the run itself if it has said anything, else of its job."""
    places = [runs / name / "log.txt", runs / f".{name}.job.txt", *([log_of(runs, job)] if job else [])]
    return next((path for path in places if path.is_file() and path.stat().st_size), places[0])


def _print_rest(path: Path, said: int) -> int:
    """What follows the first ``said`` bytes; returns how many there are now."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        file.seek(said)
        rest = file.read()
    sys.stdout.write(rest.decode(errors="replace"))
    sys.stdout.flush()
    return said + len(rest)
