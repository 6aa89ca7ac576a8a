"""How far several runs are, read from their folders: a live table on a terminal, now and then the same elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ditr.cli.display import duration
from ditr.cli.tables import text_table
from ditr.runner.plan import PlannedRun
from ditr.tracking.run_folder import RunFolder

_TAIL_BYTES = 2**17
_EVERY_S = {True: 1.0, False: 10.0}
"""Between two looks, on a terminal and elsewhere."""


class JobsTable:
    """Shows the runs that are under way; use it as a context manager."""

    def __init__(self) -> None:
        self._live = Live(console=Console(), transient=True, auto_refresh=False) if sys.stdout.isatty() else None
        self._began: dict[str, float] = {}
        self._looked = time.monotonic()

    def __enter__(self) -> JobsTable:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def look(self, runs: Sequence[PlannedRun]) -> None:
        """Shows them if it is time to."""
        now = time.monotonic()
        for run in runs:
            self._began.setdefault(run.key, now)
        if now - self._looked < _EVERY_S[self._live is not None] or not runs:
            return
        self._looked = now
        rows = [(run.folder.path.name, *_progress(run), duration(now - self._began[run.key])) for run in runs]
        table = text_table(("run", "step", "loss", "ap50", "since"), rows)
        if self._live:
            self._live.update(Text(table), refresh=True)
        else:
            sys.stdout.write(table + "\n")
            sys.stdout.flush()


def _progress(run: PlannedRun) -> tuple[int, float | None, float | None]:
    """Steps done, the last loss, the last AP50; of what the last rows of its metrics say."""
    latest: dict[str, float] = {}
    step = 0
    for row in _last_rows(run.folder):
        latest |= row["metrics"]
        step = row["step"]
    return step, latest.get("train/loss"), latest.get("val/ap50")


def _last_rows(folder: RunFolder) -> list[dict[str, Any]]:
    if not folder.metrics.is_file():
        return []
    with folder.metrics.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        lines = file.read().split(b"\n")
    return [json.loads(line) for line in lines[:-1] if line.startswith(b'{"step"')]
