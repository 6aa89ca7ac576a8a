"""Where jobs run: on this machine, on Slurm or on Ray. One protocol, and none of them is a scheduler of ours.

A job is a process that gets its plan as JSON on its standard input and writes one folder, so it can be started anywhere
that sees the folder of runs, be ended anywhere, and be started once more to go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ditr.runner.plan import PlannedRun


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a job ended, as who started its process saw it; one without a failure that was not stopped has finished."""

    failure: str | None = None
    """How it failed, with the end of its log."""
    mistake: bool = False
    """Whether the user has to change something."""
    interrupted: bool = False


Stage = Literal["queued", "running"] | Ending


class Launcher(Protocol):
    """Takes planned runs once and says from then on how far each is."""

    outlives: bool
    """Whether its jobs go on without the command that submitted them."""

    def takes(self, run: PlannedRun) -> bool:
        """Whether it is to be submitted: to be run, or to be watched as one that this launcher had before."""

    def submit(self, runs: Sequence[PlannedRun]) -> None:
        """Takes the runs; they begin when there is a place for them."""

    def stages(self) -> Mapping[str, Stage]:
        """Of every run that was submitted, by its key; called often."""

    def stop(self) -> None:
        """Asks every job to save and stop; those that wait are not begun."""

    def abandon(self, *, at_once: bool) -> None:
        """The command ends before its jobs: those that do not outlive it end, ``at_once`` without saving, and this
        waits until they have."""
