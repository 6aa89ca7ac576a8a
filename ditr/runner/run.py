"""Runs what was planned, one run after the other; what one run computed is never lost to another's failure."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ditr.errors import DitrError, Interrupted
from ditr.machine_errors import as_mistake
from ditr.record.recording import Recording, begin, move_aside
from ditr.record.state import RecordState
from ditr.runner.account import NoAccount, RecordAccount
from ditr.runner.host import Host
from ditr.runner.job_text import job_from, job_text
from ditr.runner.plan import PlannedRun
from ditr.runner.session import Session


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How a planned run stands after the command."""

    planned: PlannedRun
    state: RecordState | None
    """None if it was not begun."""
    error: Exception | None = None
    """Why it failed."""
    interrupted: bool = False
    """The user stopped it, or stopped the command before it."""
    goes_on: bool = False
    """It waits or runs elsewhere, and the command does not wait for it."""

    def result(self) -> dict[str, Any]:
        """What result.json says; empty without a result that can be read."""
        try:
            return self.planned.folder.read_result()
        except DitrError:
            return {}


def run_all(planned: Sequence[PlannedRun], *, host: Host) -> tuple[RunOutcome, ...]:
    """Runs every run that is new or unfinished; stops after one that the user interrupted.

    Of several ranks the one that leads calls this, the others ``follow``; after a run that failed those that wait are
    not begun, for the ranks may have parted.

    Raises
    ------
    KeyboardInterrupt: the user insisted; the run goes on from its last saved state the next time.
    """
    outcomes = []
    for position, run in enumerate(planned, start=1):
        if not run.runs:
            outcomes.append(RunOutcome(planned=run, state=run.folder.state()))
            continue
        if host.stop.asked or (host.ranks.count > 1 and any(outcome.error for outcome in outcomes)):
            outcomes.append(RunOutcome(planned=run, state=run.folder.state(), interrupted=True))
            continue
        host.say(f"[{position}/{len(planned)}] {run.folder.path.name} ({run.variant}): {run.status}")
        try:
            with run.folder.lock():
                outcome = _run_one(run, host=host)
        except (DitrError, OSError) as error:
            # Another process took it since the plan was made, or the disk does not even take its beginning or its end.
            outcome = RunOutcome(planned=run, state=None, error=as_mistake(error) or error)
        outcomes.append(outcome)
    if not any(outcome.error for outcome in outcomes):
        host.ranks.tell(None)
    return tuple(outcomes)


def follow(host: Host) -> None:
    """What a rank does that does not lead: its part of every run, until there is none.

    Raises
    ------
    Exception: what ended a run; the others have been told.
    """
    while (text := host.ranks.tell(None)) is not None:
        try:
            Session(job_from(text), account=NoAccount(), host=host).work()
        except Interrupted:
            pass
        except Exception as error:
            host.ranks.report(error)
            raise


def _run_one(run: PlannedRun, *, host: Host) -> RunOutcome:
    if run.status == "again":
        host.say(f"  the old run is in {move_aside(run.folder)}")
    host.ranks.tell(job_text(run))
    pid = os.getpid() if host.ranks.count == 1 else os.getppid()  # of what started the ranks, and ends them all
    recording = begin(run.folder, run.identity(kind="run", seed=run.seed), pid=pid)
    host.teller.tell(run.folder)
    try:
        return _work(run, recording, host=host)
    finally:
        host.teller.tell(run.folder)


def _work(run: PlannedRun, recording: Recording, *, host: Host) -> RunOutcome:
    try:
        Session(run, account=RecordAccount(run, recording=recording, host=host), host=host).work()
    except BaseException as error:
        if isinstance(error, Interrupted) or (host.stop.asked and isinstance(error, BrokenProcessPool)):
            # A stop that a whole process group hears ends processes that help too.
            return RunOutcome(planned=run, state=recording.finish("interrupted"), interrupted=True)
        if host.stop.insisted or not isinstance(error, Exception):
            # Where the signal came, a library may have made another exception of it.
            recording.finish("interrupted")
            raise KeyboardInterrupt from error
        host.ranks.report(error)
        return RunOutcome(planned=run, state=_note_failure(run, recording, error), error=as_mistake(error) or error)
    return RunOutcome(planned=run, state=recording.finish("finished"))


def _note_failure(run: PlannedRun, recording: Recording, error: Exception) -> RecordState:
    """Into its record; one on a disk that takes nothing any more is left as by a process that was killed."""
    with suppress(OSError):
        run.folder.append_log("".join(traceback.format_exception(error)))
        recording.finish("failed", error=str(error) or type(error).__name__)
    return recording.state
