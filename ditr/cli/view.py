"""``ditr view``: one frame as a run sees it, in 3D in the browser or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditr.cli.display import open_display
from ditr.cli.serving import end_when_told
from ditr.errors import Code, DitrError
from ditr.paths import runs_dir
from ditr.record.lookup import find_run
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.data.frame_view import FrameView
    from ditr.record.folder import Record


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("view")(view)


def view(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's folder, or its name in the folder of runs, or an experiment's name if one run has finished.",
            show_default=False,
        ),
    ],
    frame: Annotated[
        str,
        typer.Argument(
            metavar="FRAME", help="Frame id of the run's data set, such as scene0012_00_200.", show_default=False
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="PNG to write; nothing is served then.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 8080,
    host: Annotated[str, typer.Option(help="Address that the page is served on.")] = "localhost",
) -> None:
    """Look at one frame as a run sees it: points, ground truth, predictions, 2D features; in 3D, or with --out drawn.

    The run's weights evaluate the frame again. The page shows the points in the colours of your choice, the
    predictions from a score of your choice on, and the camera; Ctrl-C ends it.
    """
    folder = find_run(run, runs=runs_dir())
    name = folder.path.resolve().name
    if out is None:
        from ditr.report.pages.frame import INSTEAD, serve
        from ditr.report.pages.page import require_place

        require_place(host, port, instead=INSTEAD)
        shown, best_score = _see(folder, frame)
        end_when_told()
        serve(
            shown,
            run=name,
            best_score=best_score,
            host=host,
            port=port,
            ready=lambda url: typer.echo(f"{url}  (Ctrl-C ends it)"),
        )
    else:
        from ditr.report.frame_pictures import draw_run_view

        shown, best_score = _see(folder, frame)
        try:
            draw_run_view(shown, run=name, best_score=best_score, path=out)
        except OSError as error:
            what = f"the picture cannot be written: {error.strerror}"
            raise DitrError(what, code=Code.ENVIRONMENT, where=str(out), fix="Name another file.") from error
        typer.echo(str(out))


def _see(folder: Record, frame: str) -> tuple[FrameView, float]:
    from ditr.runner.run_view import view_frame

    with open_display() as display:
        return view_frame(folder, frame, registry=Registry(), progress=display.progress, say=display.say)
