"""Runs what was planned, one run after the other; what one run computed is never lost to another's failure."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ditr.errors import DitrError
from ditr.record.folder import RunFolder, RunState, now
from ditr.record.views.results import Results
from ditr.runner.plan import PlannedRun
from ditr.runner.session import Host, Session
from ditr.runner.stop import Interrupted


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a planned run stands after the command."""

    planned: PlannedRun
    state: RunState | None
    """None if it was not begun."""
    error: Exception | None = None
    """Why it failed; or, in a finished run, what went wrong with its tracking."""
    interrupted: bool = False
    """The user stopped it, or stopped the command before it."""

    def result(self) -> dict[str, Any]:
        """What result.json says; empty without a result."""
        file = self.planned.folder.result
        return json.loads(file.read_text()) if file.is_file() else {}


def run_all(planned: Sequence[PlannedRun], *, host: Host, results: Results) -> tuple[Outcome, ...]:
    """Runs every run that is new or unfinished; stops after one that the user interrupted.

    Raises
    ------
    KeyboardInterrupt: the user insisted; the run goes on from its last saved state the next time.
    """
    outcomes = []
    for position, run in enumerate(planned, start=1):
        if not run.runs:
            outcomes.append(Outcome(planned=run, state=run.folder.state()))
            continue
        if host.stop.asked:
            outcomes.append(Outcome(planned=run, state=run.folder.state(), interrupted=True))
            continue
        host.say(f"[{position}/{len(planned)}] {run.folder.path.name} ({run.variant}): {run.status}")
        try:
            with run.folder.lock():
                outcome = _run_one(run, host=host, results=results)
        except DitrError as error:  # another process took it since the plan was made
            outcome = Outcome(planned=run, state=None, error=error)
        outcomes.append(outcome)
    return tuple(outcomes)


def _run_one(run: PlannedRun, *, host: Host, results: Results) -> Outcome:
    if run.status == "again":
        host.say(f"  the old run is kept in {move_aside(run.folder)}")
    session = Session(run, state=_begin(run), host=host)
    results.record(run.folder)
    began = time.monotonic()
    failure: Exception | None = None
    try:
        session.work()
        state = replace(session.state, state="finished")
    except (Interrupted, KeyboardInterrupt) as stop:
        state = replace(session.state, state="interrupted")
        if isinstance(stop, KeyboardInterrupt):
            run.folder.set_state(_ended(state, since=began))
            raise
    except Exception as error:
        failure = error
        run.folder.append_log(traceback.format_exc())
        state = replace(session.state, state="failed", error=str(error) or type(error).__name__)
    state = _ended(state, since=began)
    run.folder.set_state(state)
    try:
        results.record(run.folder)
        session.close(state)
    except Exception as error:
        run.folder.append_log(f"recording failed: {traceback.format_exc()}")
        failure = failure or error
    return Outcome(planned=run, state=state, error=failure, interrupted=state.state == "interrupted")


def _begin(run: PlannedRun) -> RunState:
    """The state of the run's new session, with what earlier sessions left."""
    before = run.folder.state()
    fresh = RunState(
        run_key=run.key,
        spec_hash=run.spec_hash,
        name=run.spec.name,
        variant=run.variant,
        seed=run.seed,
        state="running",
        started_at=now(),
    )
    return run.folder.begin(before or fresh)


def _ended(state: RunState, *, since: float) -> RunState:
    return replace(state, ended_at=now(), wall_s=round((state.wall_s or 0.0) + time.monotonic() - since, 3))


def move_aside(folder: RunFolder) -> str:
    """Puts the folder where no command lists it; returns where."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    kept = folder.path.parent / ".replaced" / f"{folder.path.name}-{stamp}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    folder.path.rename(kept)
    return str(kept)
