"""``ditr doctor``: what is installed and present, and the fix for what is not."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.text import Text

from ditr.environment import DoctorLine, State, examine
from ditr.errors import ExitCode
from ditr.spec.registry import Registry

_COLOURS = {State.OK: "green", State.ABSENT: "dim", State.SLOW: "yellow", State.PROBLEM: "bold red"}


def register(app: typer.Typer) -> None:
    """Add ``doctor``."""
    app.command()(doctor)


def doctor() -> None:
    """Check what this machine has of what ditr needs; exit code 1 if something required is missing."""
    findings = examine(Registry())
    _print(findings, Console(highlight=False, soft_wrap=True))
    if any(finding.state is State.PROBLEM for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


def _print(findings: Sequence[DoctorLine], console: Console) -> None:
    """Lines rather than a table: paths and fixes are long, and are there to be copied."""
    width = max(len(finding.name) for finding in findings)
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            console.print(Text(group, style="bold"))
        state = (f"{finding.state.value:<8}", _COLOURS[finding.state])
        console.print(Text.assemble("  ", state, f"{finding.name:<{width}}  {finding.found}"))
        if finding.fix:
            console.print(Text(f"{'':{12 + width}}fix: {finding.fix}"))
    problems = sum(finding.state is State.PROBLEM for finding in findings)
    console.print("ready to run" if not problems else f"{problems} to fix before ditr can run")
