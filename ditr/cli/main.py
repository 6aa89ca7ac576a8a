"""The ``ditr`` command: collects the command groups and turns every user's mistake into one message and exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

import ditr
from ditr.cli import (
    check,
    checkpoint,
    compare,
    data,
    doctor,
    evaluate,
    features,
    import_log,
    init,
    jobs,
    plan,
    predict,
    remove,
    report,
    results,
    run,
    setup_engine,
    spec,
    ui,
    view,
)
from ditr.cli.host import leave, open_closed_streams
from ditr.cli.serving import STOPPED, StopRequest
from ditr.errors import DitrError, ExitCode
from ditr.machine_errors import as_mistake


class _Commands(TyperGroup):
    """Commands that say so when they are stopped, each in its own words or in those for all."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        with _said_when_stopped(named.get("obj")):
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        with _said_when_stopped(ctx.obj):
            return super().invoke(ctx)


@contextmanager
def _said_when_stopped(request: StopRequest | None) -> Iterator[None]:
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        asked = request is not None and request.asked  # a worker that hears the signal too may break a pool
        if not asked and not isinstance(error, KeyboardInterrupt):
            raise
        typer.echo(STOPPED, err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


app = typer.Typer(
    name="ditr",
    cls=_Commands,
    help="Does fusing 2D foundation features into a 3D backbone help, and by how much?",
    epilog=(
        "Exit codes: 0 done, 1 a check or a run failed, 2 you have to change something, 130 interrupted.  \n"
        "Stores: DITR_RUNS, DITR_CACHE, DITR_DATA and DITR_WEIGHTS choose folders; `ditr doctor` shows them."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for group in (
    init,
    run,
    plan,
    evaluate,
    check,
    compare,
    remove,
    report,
    view,
    predict,
    results,
    jobs,
    import_log,
    ui,
    spec,
    data,
    features,
    checkpoint,
    doctor,
    setup_engine,
):
    group.register(app)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ditr {ditr.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Takes what is said before the command; the help is that of ``app``."""


def main() -> None:
    """Entry point; what it exits with is an ``ExitCode``."""
    open_closed_streams()
    request = StopRequest()
    request.listen()
    try:
        app(obj=request)
    except DitrError as error:
        _refuse(error)
    except OSError as error:
        if mistake := as_mistake(error):
            _refuse(mistake)
        raise
    except KeyboardInterrupt:  # before there was a command
        typer.echo(STOPPED, err=True)
        leave(ExitCode.INTERRUPTED)
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else ExitCode.DONE)


def _refuse(error: DitrError) -> NoReturn:
    Console(stderr=True, highlight=False, soft_wrap=True).print(str(error), markup=False)
    leave(ExitCode.MISTAKE)


if __name__ == "__main__":
    main()
