"""Which runs some launcher has now, or some process writes, whatever command began them; and ending them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ditr.errors import Code, DitrError
from ditr.record.folder import Record, records_in
from ditr.runner.launchers.slurm import cancel, is_running, is_waiting, squeue
from ditr.runner.launchers.tickets import JobFiles, Ticket


@dataclass(frozen=True)
class UnderWay:
    """A run that waits or runs."""

    folder: Record
    ticket: Ticket | None
    """None of one that a command runs itself."""


def held_tickets(runs: Path) -> dict[str, Ticket]:
    """Tickets of runs that wait, or whose jobs have begun and not ended, by their keys.

    Slurm is asked once, if anything was given to it.
    """
    files = JobFiles(runs)
    tickets = [ticket for ticket in files.tickets() if files.ending(ticket.key) is None]
    states = squeue() if any(ticket.launcher == "slurm" for ticket in tickets) else None
    return {ticket.key: ticket for ticket in tickets if _holds(ticket, files, states)}


def runs_under_way(runs: Path) -> dict[str, UnderWay]:
    """By the names of their folders."""
    given = {ticket.name: ticket for ticket in held_tickets(runs).values()}
    locked = [folder.path.name for folder in records_in(runs) if folder.is_locked()]
    return {name: UnderWay(Record(runs / name), given.get(name)) for name in dict.fromkeys([*locked, *given])}


def match_names(patterns: Sequence[str], names: Sequence[str], *, what: str) -> list[str]:
    """Those of the names that fit a pattern.

    Raises
    ------
    DitrError: none fits one of them.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            fix = f"Name one of: {', '.join(names)}." if names else "`ditr ls` lists all runs."
            raise DitrError(f"no {what} is called '{pattern}'", code=Code.RUN, fix=fix)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def stop_runs(chosen: Sequence[UnderWay], *, runs: Path) -> None:
    """Asks each to save and stop; one that waits is not begun.

    Raises
    ------
    DitrError: a command on another machine runs one of them itself.
    """
    files, jobs = JobFiles(runs), dict[str, set[str]]()
    for run in chosen:
        if run.ticket is None:
            _interrupt(run.folder)
        else:
            files.ask_to_stop(run.ticket.key)
            if run.ticket.launcher == "slurm":
                jobs.setdefault(run.ticket.job, set()).add(run.ticket.key)
    others = {ticket.job for ticket in files.tickets() if ticket.key not in jobs.get(ticket.job, set())}
    cancel([job for job in jobs if job not in others])


def _interrupt(folder: Record) -> None:
    state = folder.state()
    if state is None:
        return
    if state.host != socket.gethostname():
        fix = f"Stop process {state.pid} on {state.host}: kill -INT {state.pid}"
        raise DitrError("a command on another machine runs it", code=Code.RUN, where=str(folder.path), fix=fix)
    os.kill(state.pid, signal.SIGINT)


def _holds(ticket: Ticket, files: JobFiles, states: Mapping[str, str] | None) -> bool:
    if ticket.holder:
        return files.is_held(ticket.holder)
    return is_waiting(ticket.job, states) or is_running(ticket.job, states)
