"""How far several runs are, read from their folders: a live table on a terminal, now and then the same elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ditr.cli.display import QUIET_S, duration
from ditr.cli.tables import text_table
from ditr.record.folder import MetricsRow
from ditr.runner.plan import PlannedRun
from ditr.runner.queue import Standing
from ditr.runner.run import RunOutcome

_LIVE_S = 1.0
COLUMNS = ("run", "state", "epoch", "step", "loss", "ap50", "time", "left")


class JobsTable:
    """Shows the runs that are under way, and says of each how it ended; use it as a context manager."""

    def __init__(self) -> None:
        console = Console(highlight=False)
        self._live = Live(console=console, transient=True, auto_refresh=False) if sys.stdout.isatty() else None
        self._began: dict[str, float] = {}
        self._looked = time.monotonic()
        self._told = 0

    def __enter__(self) -> JobsTable:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def look(self, standing: Standing) -> None:
        """Shows them if it is time to."""
        for outcome in standing.ended[self._told :]:
            self._say(how_it_ended(outcome))
        self._told = len(standing.ended)
        now = time.time()
        for run in standing.under_way:
            self._began.setdefault(run.key, now)
        if time.monotonic() - self._looked < (_LIVE_S if self._live else QUIET_S) or not standing.under_way:
            return
        self._looked = time.monotonic()
        rows = [job_row(run, began=self._began[run.key], now=now) for run in standing.under_way]
        table, rest = text_table(COLUMNS, rows), _rest(standing)
        if self._live:
            self._live.update(Group(Text(table, no_wrap=True, end=""), Text(rest)), refresh=True)
        else:
            self._say(table + rest)

    def _say(self, text: str) -> None:
        if self._live:
            self._live.console.print(text, markup=False, soft_wrap=True)
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


def job_row(run: PlannedRun, *, began: float, now: float) -> Sequence[Any]:
    """A row of the table, of what the run's folder says.

    Parameters
    ----------
    began, now: seconds since 1970; what was logged before ``began`` is of an earlier session, and no measure of speed.
    """
    state = run.folder.state()
    steps, logged = state.steps if state else None, run.folder.latest()
    latest: dict[str, float] = {name: value for row in logged for name, value in row["metrics"].items()}
    mine = [row for row in logged if row["at"] >= began]
    step = logged[-1]["step"] if logged else 0
    doing = "starts" if not mine else "evaluates" if step == steps else "trains"
    epochs = run.spec.schedule.epochs
    epoch = f"{min(epochs, step * epochs // steps + 1)}/{epochs}" if steps else None
    left = _left(mine, steps) if steps else None
    loss, ap50 = latest.get("train/loss"), latest.get("val/ap50")
    return (run.folder.path.name, doing, epoch, _of(step, steps), loss, ap50, duration(now - began), left)


def how_it_ended(outcome: RunOutcome) -> str:
    """One line; what went wrong is told in full when all have ended."""
    name = outcome.planned.folder.path.name
    if outcome.error is not None:
        return f"{name}: {str(outcome.error).splitlines()[0]}"
    if outcome.interrupted:
        return f"{name}: stopped and saved"
    ap50, took = outcome.result().get("ap50"), outcome.state.wall_s if outcome.state else None
    return f"{name}: finished" + (f", ap50 {ap50:.4f}" if ap50 is not None else "") + f", {duration(took or 0)}"


def _left(rows: Sequence[MetricsRow], steps: int) -> str | None:
    """Time to the last step, at the speed of the rows, validations between them included."""
    done = rows[-1]["step"] - rows[0]["step"] if rows else 0
    if not done:
        return None
    return duration((steps - rows[-1]["step"]) * (rows[-1]["at"] - rows[0]["at"]) / done)


def _rest(standing: Standing) -> str:
    failed = sum(outcome.error is not None for outcome in standing.ended)
    counts = {"waiting": standing.waiting, "ended": len(standing.ended) - failed, "failed": failed}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _of(step: int, steps: int | None) -> str:
    return f"{step}/{steps}" if steps else str(step)
