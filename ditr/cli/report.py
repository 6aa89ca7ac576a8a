"""``ditr report``: a comparison as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ditr.cli.compare import WHAT, Allow, MetricName, MetricOption, find_arms
from ditr.cli.out_file import out_file
from ditr.errors import Code
from ditr.files import write_text


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("report")(report)


def report(
    arms: Annotated[
        list[str] | None, typer.Argument(metavar="ARM", help=f"{WHAT} Default: all.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
    metric: MetricOption = MetricName.AP50,
    allow: Allow = None,
) -> None:
    """Write a comparison of finished runs as one self-contained page, which opens without a network.

    It holds what `ditr compare` says, and learning curves, precision and recall, parts of the ground truth, frames,
    specs and provenance.
    """
    from ditr.report.compare import compare
    from ditr.report.page import report_page
    from ditr.report.stratum_contrasts import by_stratum

    found = find_arms(arms or ())
    found.require_some()
    file = out_file(out, code=Code.RUN, such_as="report.html")
    comparison = compare(found, metric=metric.value, allow=allow or ())
    parts = by_stratum(found.found, reference=comparison.reference, metric=metric.value)
    write_text(file, report_page(comparison, parts=parts))
    typer.echo(f"{out}: {len(found.found)} arms, {file.stat().st_size / 2**20:.1f} MiB")
