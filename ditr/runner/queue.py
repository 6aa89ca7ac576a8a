"""Several runs at once, each in a process of its own; one that fails or dies leaves the others alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ditr.errors import ExitCode
from ditr.record.folder import unwritable
from ditr.record.state import RecordState, now
from ditr.record.views.teller import Teller
from ditr.runner.job_text import job_text
from ditr.runner.plan import PlannedRun
from ditr.runner.run import RunOutcome
from ditr.runner.slots import Slot
from ditr.runner.stop import StopSignal

JOB = (sys.executable, "-m", "ditr.cli.job")
"""Runs the one planned run that it reads from its standard input; what follows is the user's command, which the run's
provenance names."""
RANKS = (sys.executable, "-m", "ditr.cli.ranks")
"""Starts so many ranks, as the next word says, that run such a job together."""
_LOOK_S = 0.2
_LOG_LINES = 12


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


@dataclass(frozen=True)
class _Job:
    run: PlannedRun
    slot: Slot
    process: subprocess.Popen[str]
    said: Path
    """All that it and the libraries in it wrote, to be read if it dies without a word in the run's own log."""


def run_at_once(
    planned: Sequence[PlannedRun], *, slots: Sequence[Slot], teller: Teller, stop: StopSignal, look: Look
) -> tuple[RunOutcome, ...]:
    """Runs what is new or unfinished, one job a slot; outcomes in the order of ``planned``.

    When asked to stop, every job saves and stops. Jobs share the cores: each gets its part of them for threads and for
    loader processes. A job whose parent is killed goes on to its end, and until then a later call finds its run busy.
    ``teller`` takes the records of jobs that died; the others tell of their own.

    Raises
    ------
    KeyboardInterrupt: the user insisted; jobs end at once and go on from their last saved state the next time.
    """
    for run in planned:
        if run.status == "finished":
            _output_of(run).unlink(missing_ok=True)  # of a job whose parent was killed; the run's own log has it all
    waiting = [run for run in planned if run.runs]
    cores = max(1, len(os.sched_getaffinity(0)) // max(1, min(len(slots), len(waiting))))
    free, under_way, ended, told = list(slots), list[_Job](), dict[str, RunOutcome](), False
    try:
        while under_way or (waiting and not stop.asked):
            if stop.asked and not told:
                _tell(under_way, signal.SIGINT)
                told = True
            while waiting and free and not stop.asked:
                under_way.append(_start(waiting.pop(0), slot=free.pop(0), cores=cores))
            for job in [job for job in under_way if job.process.poll() is not None]:
                under_way.remove(job)
                free.append(job.slot)
                ended[job.run.key] = _outcome(job, teller=teller, told=told)
            running = tuple(job.run for job in under_way)
            look(Standing(under_way=running, ended=tuple(ended.values()), waiting=len(waiting)))
            time.sleep(_LOOK_S)
    except BaseException as error:
        at_once = isinstance(error, KeyboardInterrupt)
        _tell(under_way, signal.SIGKILL if at_once else signal.SIGINT)
        for job in under_way:
            job.process.wait()
            _outcome(job, teller=teller, told=True)
        raise
    outcomes = ended | {run.key: RunOutcome(planned=run, state=run.folder.state(), interrupted=True) for run in waiting}
    return tuple(
        outcomes[run.key] if run.runs else RunOutcome(planned=run, state=run.folder.state()) for run in planned
    )


def _output_of(run: PlannedRun) -> Path:
    """The file of all that its job and the libraries in it write."""
    return run.folder.path.with_name(f".{run.folder.path.name}.job.txt")


def _start(run: PlannedRun, *, slot: Slot, cores: int) -> _Job:
    changed = {"device": slot.device, "workers": min(run.spec.execution.workers, cores)}
    execution = run.spec.execution.model_copy(update=changed)
    given = replace(run, spec=run.spec.model_copy(update={"execution": execution}))
    said = _output_of(run)
    try:
        output = said.open("w")
    except OSError as error:
        raise unwritable(said, error) from error
    with output:
        # A session of its own: the terminal's Ctrl-C reaches this process alone, which passes it on once.
        process = subprocess.Popen(
            (*(JOB if slot.ranks == 1 else (*RANKS, str(slot.ranks))), *sys.argv[1:]),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": slot.gpu or "", "OMP_NUM_THREADS": str(cores)},
            start_new_session=True,
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:  # of one that died at once; its exit code says so
        process.stdin.write(job_text(given))
    return _Job(run, slot, process, said)


def _outcome(job: _Job, *, teller: Teller, told: bool) -> RunOutcome:
    """``told``: it was asked to stop, maybe before it could hear that, or ended."""
    folder, code = job.run.folder, job.process.returncode
    state = folder.state()
    began = state is not None and state.pid == job.process.pid
    how = "not begun" if state is None else state.state
    died = began and how == "running"  # it could not say so itself
    failure = None
    if code != 0 and not (told and how != "failed"):
        failure = JobFailed(_how_it_ended(job, state if began and not died else None), mistake=code == ExitCode.MISTAKE)
    if state is not None and died:
        what = str(failure).splitlines()[0] if failure else None
        state = replace(state, state="failed" if failure else "interrupted", error=what, ended_at=now())
        folder.set_state(state)
        teller.tell(folder)
    if began and not died:
        job.said.unlink()  # the run's own log has it all
    return RunOutcome(planned=job.run, state=state, error=failure, interrupted=failure is None and how != "finished")


def _how_it_ended(job: _Job, state: RecordState | None) -> str:
    """In words, with the end of what there is to read about it; ``state`` is what the job itself left at its end."""
    code = job.process.returncode
    if code == ExitCode.MISTAKE and state is not None and state.error:
        return state.error
    if state is not None:
        how, log = f"failed: {state.error}" if state.error else "its tracking failed", job.run.folder.log_file
    else:
        how, log = f"its process ended with code {code}", job.said
    if code < 0:
        how = f"its process was ended by signal {-code} ({signal.strsignal(-code)})"
    if code == -signal.SIGKILL:
        how += ", as the kernel does when memory runs out"
    end = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] or ["nothing"]
    return "\n    ".join([f"{how}\n  the end of {log}:", *end])


def _tell(jobs: Sequence[_Job], number: signal.Signals) -> None:
    for job in jobs:
        if job.process.poll() is None:
            os.killpg(job.process.pid, number)
