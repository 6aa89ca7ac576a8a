"""``ditr doctor``: what is installed and present, and the fix for what is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ditr.environment import OPTIONAL, DoctorLine, State, examine
from ditr.errors import ExitCode
from ditr.spec.registry import Registry

_COLOURS = {State.OK: "green", State.ABSENT: "dim", State.SLOW: "yellow", State.PROBLEM: "bold red"}


def register(app: typer.Typer) -> None:
    """Add ``doctor``."""
    app.command()(doctor)


def doctor(
    whole: Annotated[bool, typer.Option("--all", help="Also list what only specs that name it need.")] = False,
) -> None:
    """Check what this machine has of what ditr needs; exit code 1 if something required is missing.

    What is to be fixed comes first, then the project, its folders and the software.
    """
    findings = examine(Registry())
    console = Console(highlight=False, soft_wrap=True)
    urgent = [finding for finding in findings if finding.state in (State.PROBLEM, State.SLOW)]
    others = [finding for finding in findings if finding not in urgent and (whole or finding.group not in OPTIONAL)]
    width = max(len(finding.name) for finding in (*urgent, *others))
    _print(urgent, console, heading="to fix", width=width)
    for group in dict.fromkeys(finding.group for finding in others):
        _print([finding for finding in others if finding.group == group], console, heading=group, width=width)
    if not whole:
        console.print(_counts(findings))
    problems = sum(finding.state is State.PROBLEM for finding in findings)
    console.print("ready to run" if not problems else f"{problems} to fix before ditr can run")
    if problems:
        raise typer.Exit(ExitCode.FAILED)


def _print(findings: Sequence[DoctorLine], console: Console, *, heading: str, width: int) -> None:
    """Lines rather than a table: paths and fixes are long, and are there to be copied."""
    if findings:
        console.print(Text(heading, style="bold"))
    for finding in findings:
        state = (f"{finding.state.value:<8}", _COLOURS[finding.state])
        console.print(Text.assemble("  ", state, f"{finding.name:<{width}}  {finding.found}"))
        if finding.fix:
            console.print(Text(f"{'':{12 + width}}fix: {finding.fix}"))


def _counts(findings: Sequence[DoctorLine]) -> str:
    """Of what only specs that name it need."""
    here = {group: [one.state is State.OK for one in findings if one.group == group] for group in OPTIONAL}
    each = ", ".join(f"{sum(found)} of {len(found)} {group}" for group, found in here.items())
    return f"of what specs can name, {each} are here (`ditr doctor --all` lists them)"
