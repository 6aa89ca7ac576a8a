"""Several runs at once, each in a process of its own; one that fails or dies leaves the others alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from ditr.runner.plan import PlannedRun
from ditr.runner.run import Outcome
from ditr.runner.stop import StopSignal
from ditr.spec.models import Spec
from ditr.tracking.run_folder import RunFolder

JOB = (sys.executable, "-m", "ditr.cli.job")
"""Runs the one planned run that it reads from its standard input."""
_LOOK_S = 0.2
_LOG_LINES = 12
CPU = "cpu"


@dataclass(frozen=True)
class Slot:
    """A place where one job runs at a time: a GPU by its number, or the CPU."""

    device: str


@dataclass
class _Job:
    run: PlannedRun
    slot: Slot
    process: subprocess.Popen[str]
    log: IO[str]


Look = Callable[[Sequence[PlannedRun]], None]
"""Called often with the runs that are under way."""


def run_at_once(
    planned: Sequence[PlannedRun], *, slots: Sequence[Slot], stop: StopSignal, look: Look
) -> tuple[Outcome, ...]:
    """Runs what is new or unfinished, one job a slot; outcomes in the order of ``planned``.

    When asked to stop, every job saves and stops. Jobs get bounded threads and loader processes, so that all together
    stay within the cores. A job whose parent is killed goes on, and a later call finds its run busy.

    Raises
    ------
    KeyboardInterrupt: the user insisted; jobs end at once and go on from their last saved state the next time.
    """
    waiting = [run for run in planned if run.runs]
    free, under_way, ended = list(slots), list[_Job](), dict[str, Outcome]()
    try:
        while under_way or (waiting and not stop.asked):
            while waiting and free and not stop.asked:
                under_way.append(_start(waiting.pop(0), slot=free.pop(0), jobs=len(slots)))
            if stop.asked:
                _tell(under_way, signal.SIGINT)
                for job in under_way:
                    job.process.wait()
            for job in [job for job in under_way if job.process.poll() is not None]:
                under_way.remove(job)
                free.append(job.slot)
                ended[job.run.key] = _outcome(job)
            look([job.run for job in under_way])
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        _tell(under_way, signal.SIGKILL)
        raise
    untouched = {run.key: Outcome(planned=run, state=run.folder.state(), interrupted=run.runs) for run in planned}
    return tuple(ended.get(run.key, untouched[run.key]) if run.runs else untouched[run.key] for run in planned)


def job_text(run: PlannedRun) -> str:
    """A planned run as JSON, for the process that runs it."""
    return json.dumps(
        {
            "spec": run.spec.model_dump(mode="json"),
            "source": str(run.source),
            "overrides": list(run.overrides),
            "spec_hash": run.spec_hash,
            "key": run.key,
            "variant": run.variant,
            "folder": str(run.folder.path),
            "seed": run.seed,
            "status": run.status,
        }
    )


def job_from(text: str) -> PlannedRun:
    """The planned run that ``job_text`` wrote."""
    facts: dict[str, Any] = json.loads(text)
    facts["spec"] = Spec.model_validate_json(json.dumps(facts["spec"]))
    facts |= {"source": Path(facts["source"]), "folder": RunFolder(Path(facts["folder"]))}
    return PlannedRun(**facts | {"overrides": tuple(facts["overrides"])})


def _start(run: PlannedRun, *, slot: Slot, jobs: int) -> _Job:
    cores = max(1, len(os.sched_getaffinity(0)) // jobs)
    device = "cpu" if slot.device == CPU else "cuda"
    execution = run.spec.execution.model_copy(
        update={"device": device, "workers": min(run.spec.execution.workers, cores)}
    )
    run = replace(run, spec=run.spec.model_copy(update={"execution": execution}))
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "" if slot.device == CPU else slot.device,
        "OMP_NUM_THREADS": str(cores),
    }
    run.folder.path.mkdir(parents=True, exist_ok=True)
    log = (run.folder.path.parent / f".{run.folder.path.name}.job.txt").open("w+")
    # A session of its own: the terminal's Ctrl-C reaches this process alone, which passes it on once.
    process = subprocess.Popen(
        JOB,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(job_text(run))
    process.stdin.close()
    return _Job(run, slot, process, log)


def _outcome(job: _Job) -> Outcome:
    state = job.run.folder.state()
    job.log.seek(0)
    said = job.log.read().splitlines()[-_LOG_LINES:]
    job.log.close()
    code = job.process.returncode
    if state is not None and code == 0 and state.state in ("finished", "interrupted"):
        Path(job.log.name).unlink()  # the run's own log has it all; of a job that died it stays
        return Outcome(planned=job.run, state=state, interrupted=state.state == "interrupted")
    how = f"its process was ended by signal {-code}" if code < 0 else f"its process ended with code {code}"
    return Outcome(
        planned=job.run, state=state, error=JobDied("\n    ".join([f"{how}; the end of what it said:", *said]))
    )


class JobDied(Exception):
    """A job that ended without finishing its run."""


def _tell(jobs: Sequence[_Job], number: signal.Signals) -> None:
    for job in jobs:
        if job.process.poll() is None:
            os.killpg(job.process.pid, number)
