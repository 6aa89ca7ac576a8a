"""Several runs at once, each in a process of its own; one that fails or dies leaves the others alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ditr.record.views.teller import Teller
from ditr.runner.launchers import Ending, Launcher, Stage
from ditr.runner.launchers.process import output_of
from ditr.runner.plan import PlannedRun
from ditr.runner.run import RunOutcome
from ditr.runner.stop import StopSignal

_LOOK_S = 0.2
_TELL_S = 10.0
"""Between two looks at what running jobs wrote, for the views."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a queue is."""

    under_way: tuple[PlannedRun, ...]
    ended: tuple[RunOutcome, ...]
    """In the order in which they did."""
    waiting: int


Look = Callable[[Standing], None]
"""Called often."""


class JobFailed(Exception):
    """A job that ended without finishing its run: how, and the end of its log."""

    def __init__(self, what: str, *, mistake: bool) -> None:
        super().__init__(what)
        self.mistake = mistake
        """Whether the user has to change something."""


def run_at_once(
    planned: Sequence[PlannedRun], *, launcher: Launcher, teller: Teller, stop: StopSignal, look: Look
) -> tuple[RunOutcome, ...]:
    """Runs what the launcher takes, where it has a place for it; outcomes in the order of ``planned``.

    When asked to stop, every job saves and stops; those that outlive this command are left to go on. Jobs write their
    folders alone: ``teller`` is told here of what they wrote.

    Raises
    ------
    KeyboardInterrupt: the user insisted; jobs end at once and go on from their last saved state the next time.
    """
    for run in planned:
        if run.status == "finished":
            output_of(run).unlink(missing_ok=True)  # of a job whose parent was killed; the run's own log has it all
    taken = [run for run in planned if launcher.takes(run)]
    watch = _Watch(taken, teller=teller)
    asked = False
    try:
        launcher.submit(watch.runs)
        while not watch.is_done:
            if stop.asked and launcher.outlives:
                break
            if stop.asked and not asked:
                launcher.stop()
                asked = True
            look(watch.look(launcher.stages()))
            time.sleep(_LOOK_S)
    except BaseException as error:
        launcher.abandon(at_once=isinstance(error, KeyboardInterrupt))
        watch.look(launcher.stages())
        raise
    return tuple(
        watch.outcome(run) if run in taken else RunOutcome(planned=run, state=run.folder.state()) for run in planned
    )


class _Watch:
    """What is known of the jobs of some runs, and what the views were told of them."""

    def __init__(self, runs: Sequence[PlannedRun], *, teller: Teller) -> None:
        self.runs = tuple(runs)
        self._teller = teller
        self._ended: dict[str, RunOutcome] = {}
        self._stamps: dict[str, str] = {}
        self._told_at = time.monotonic()

    @property
    def is_done(self) -> bool:
        return len(self._ended) == len(self.runs)

    def look(self, stages: Mapping[str, Stage]) -> Standing:
        for run in self.runs:
            stage = stages.get(run.key, "queued")
            if isinstance(stage, Ending) and run.key not in self._ended:
                self._ended[run.key] = _outcome(run, stage)
                self._tell(run)
        under_way = tuple(run for run in self.runs if stages.get(run.key) == "running")
        if time.monotonic() - self._told_at >= _TELL_S:
            self._told_at = time.monotonic()
            for run in under_way:
                self._tell(run)
        waiting = len(self.runs) - len(under_way) - len(self._ended)
        return Standing(under_way=under_way, ended=tuple(self._ended.values()), waiting=waiting)

    def outcome(self, run: PlannedRun) -> RunOutcome:
        """Of one that has not ended: that it goes on elsewhere."""
        return self._ended.get(run.key) or RunOutcome(planned=run, state=run.folder.state(), goes_on=True)

    def _tell(self, run: PlannedRun) -> None:
        """Of a record that changed since."""
        stamp = run.folder.stamp()
        if run.folder.state_file.is_file() and self._stamps.get(run.key) != stamp:
            self._stamps[run.key] = stamp
            self._teller.tell(run.folder)


def _outcome(run: PlannedRun, ending: Ending) -> RunOutcome:
    error = None if ending.failure is None else JobFailed(ending.failure, mistake=ending.mistake)
    return RunOutcome(planned=run, state=run.folder.state(), error=error, interrupted=ending.interrupted)
