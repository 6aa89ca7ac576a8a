"""The ``ditr`` command: collects the command groups and turns every user's mistake into one message and exit code 2."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from ditr.cli import (
    check,
    checkpoint,
    compare,
    data,
    doctor,
    evaluate,
    features,
    import_log,
    plan,
    report,
    results,
    run,
    spec,
    ui,
    view,
)
from ditr.errors import DitrError

app = typer.Typer(
    name="ditr",
    help="Does fusing 2D foundation features into a 3D backbone help, and by how much?",
    epilog=(
        "Exit codes: 0 done, 1 a check or a run failed, 2 you have to change something, 130 interrupted.  \n"
        "Stores: DITR_RUNS, DITR_CACHE, DITR_DATA and DITR_WEIGHTS choose folders; `ditr doctor` shows them."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for group in (
    run,
    plan,
    evaluate,
    check,
    compare,
    report,
    view,
    results,
    import_log,
    ui,
    spec,
    data,
    features,
    checkpoint,
    doctor,
):
    group.register(app)


def main() -> None:
    """Entry point; exit code 0 done, 1 a check or a run failed, 2 the user must change something, 130 interrupted."""
    try:
        app()
    except DitrError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(str(error), markup=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
