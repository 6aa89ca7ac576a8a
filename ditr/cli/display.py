"""How a long command shows where it is: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

QUIET_S = 10.0
"""Off a terminal, seconds between two lines about what goes on."""


class Display(Protocol):
    """A place for progress and lines; use it as a context manager."""

    def progress(self, what: str, done: int, total: int) -> None: ...

    def say(self, line: str) -> None: ...

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_display() -> Display:
    """Bars if standard output is a terminal, else lines."""
    return Bars() if sys.stdout.isatty() else Lines()


class Lines:
    """A line about what goes on every ``QUIET_S`` seconds, with its speed and what is left of it."""

    def __init__(self) -> None:
        self._told = time.monotonic()
        self._began: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.flush()

    def say(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        self._told = time.monotonic()

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        began, first = self._began.setdefault(what, (now, done))
        if done >= total:
            del self._began[what]
        elif now - self._told >= QUIET_S:
            speed = (done - first) / (now - began) if now > began else 0.0
            left = f", {speed:.3g}/s, {duration((total - done) / speed)} left" if speed else ""
            self.say(f"  {what}: {done}/{total}{left}")


def duration(seconds: float) -> str:
    """Such as 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class _Speed(ProgressColumn):
    """Steps a second, of the last half minute."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g}/s" if task.speed else "")


class Bars:
    """A bar for each thing that goes on, gone when it ends."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        times = (_Speed(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, *times, console=self._console, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    def progress(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(what))
