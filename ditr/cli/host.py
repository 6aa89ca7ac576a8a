"""What the commands that make records share: a display, the stop, views that are told, pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from ditr.cli.display import open_display
from ditr.errors import Code, DitrError, ExitCode
from ditr.paths import runs_dir
from ditr.progress import silent
from ditr.ranks import ALONE, Ranks
from ditr.record.folder import Record
from ditr.record.views import views_of
from ditr.record.views.teller import Teller, is_telling
from ditr.runner.host import Host
from ditr.runner.join import is_rank
from ditr.runner.run import follow
from ditr.runner.stop import STOPPING, StopSignal
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.evaluation.evaluate import Evaluation


@contextmanager
def open_host(registry: Registry, *, says: bytes = STOPPING, ranks: Ranks = ALONE) -> Iterator[Host]:
    """What records are made with here; at the end views catch up, and one that cannot is a warning.

    Parameters
    ----------
    says: the answer to the first Ctrl-C.
    ranks: this one leads.
    """
    make_runs_folder()
    with open_display() as display, StopSignal(says=says) as stop, open_teller() as teller:
        yield Host(
            registry=registry,
            progress=display.progress,
            say=display.say,
            stop=stop,
            draw=draw_pictures,
            teller=teller,
            ranks=ranks,
        )


def follow_ranks(stop: StopSignal, ranks: Ranks) -> None:
    """What a rank does that does not lead: its part of every run, without a word; it raises what ended one."""
    nobody = Teller((), say=warn)
    host = Host(
        registry=Registry(),
        progress=silent,
        say=lambda line: None,
        stop=stop,
        draw=draw_pictures,
        teller=nobody,
        ranks=ranks,
    )
    follow(host)


def open_teller() -> Teller:
    """Of the views of the folder of runs."""
    return Teller(views_of(runs_dir()), say=warn)


def warn(line: str) -> None:
    """To standard error; nothing that was asked for has failed."""
    typer.echo(f"warning: {line}", err=True)


def leave(code: ExitCode | int) -> NoReturn:
    """Ends the process; at once where a view is still being told: DuckDB aborts a thread that Python ends with it; and
    where other ranks may be gone, for whom a process group waits."""
    if is_telling() or is_rank():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def open_closed_streams() -> None:
    """Gives a process that was started without one of its three streams (``ditr ls >&-``) one that leads nowhere: the
    next file that it opens, a database perhaps, would otherwise take the number of the stream, and what is printed."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    sys.stdin, sys.stdout, sys.stderr = (
        stream if stream is not None else open(number, mode, closefd=False)  # noqa: SIM115  (for the whole process)
        for number, (stream, mode) in enumerate(((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w")))
    )


def make_runs_folder() -> None:
    """The folder of records, or a message why it cannot be."""
    runs = runs_dir()
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = "Let DITR_RUNS name a folder that can be made and written."
        what = f"cannot make the folder of runs: {error.strerror}"
        raise DitrError(what, code=Code.ENVIRONMENT, where=str(runs), fix=fix) from error


def draw_pictures(folder: Record, evaluation: Evaluation) -> None:
    """Panels and curves, drawn into the record."""
    from ditr.report.run_pictures import draw_run

    draw_run(folder.panels, evaluation=evaluation, name=folder.path.name)


def in_words(error: Exception) -> str:
    """An error that is no user's mistake, with where its traceback is."""
    return "\n  ".join([f"failed with {type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
