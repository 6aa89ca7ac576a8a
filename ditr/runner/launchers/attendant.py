"""What a scheduler runs on a node: the processes of some jobs, from their start or their saved state."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ditr.runner.job_text import job_from
from ditr.runner.launchers import Ending
from ditr.runner.launchers.process import JobProcess
from ditr.runner.launchers.tickets import JobFiles
from ditr.runner.plan import PlannedRun

_LOOK_S = 0.5
_LOCK_S = 240.0
"""Longest wait for the lock of a process that is gone with its node: a server of NFS keeps it for a while."""


@dataclass
class Attendant:
    """Runs its jobs beside each other when it is called; asked to stop, they save, and the next call goes on.

    Schedulers pickle it: it holds plain values until it is called.
    """

    texts: tuple[str, ...]
    """Planned runs, as ``job_text`` writes them."""
    command: tuple[str, ...]
    """The user's, for the provenance."""
    python: tuple[str, ...]
    """What starts Python."""
    cores: int
    """Of each of its jobs."""
    environment: Mapping[str, str]
    """Of every job, beside that of the node."""
    grace_s: float = 0.0
    """How long it stays when somebody else stopped its jobs: a scheduler that preempts a job puts it into the queue
    again only if it is still there at the end of its grace."""
    _jobs: list[JobProcess] = field(default_factory=list, init=False, repr=False)

    def __call__(self) -> None:
        """Returns when all have ended, whatever became of them; how, is noted beside the records."""
        self._jobs = []
        told = set[str]()
        runs = [job_from(text) for text in self.texts]
        files = JobFiles(runs[0].folder.path.parent)
        for run in runs:
            files.ending_file(run.key).unlink(missing_ok=True)  # of before a preemption
            _wait_for_lock(run)
            if files.is_asked_to_stop(run.key):
                files.note_ending(run.key, Ending(interrupted=True))
            elif _has_finished(run):
                files.note_ending(run.key, Ending())
            else:
                self._jobs.append(self._start(run))
        under_way, stopped = list(self._jobs), list[str]()
        while under_way:
            for job in list(under_way):
                key = job.run.key
                if job.has_ended:
                    under_way.remove(job)
                    ending = job.ending(told=key in told)
                    if ending.interrupted and key not in told:
                        stopped.append(key)
                    else:
                        files.note_ending(key, ending)
                elif key not in told and files.is_asked_to_stop(key):
                    job.tell(signal.SIGUSR2)
                    told.add(key)
            time.sleep(_LOOK_S)
        if stopped:
            time.sleep(self.grace_s)
            for key in stopped:
                files.note_ending(key, Ending(interrupted=True))

    def stop(self) -> Attendant:
        """While it is called: asks every job to save, waits until they have, and returns what goes on with them."""
        for job in self._jobs:
            job.tell(signal.SIGUSR2)
        for job in self._jobs:
            job.wait()
        return replace(self)

    def _start(self, run: PlannedRun) -> JobProcess:
        changed = {"workers": min(run.spec.execution.workers, self.cores)}
        execution = run.spec.execution.model_copy(update=changed)
        given = replace(run, spec=run.spec.model_copy(update={"execution": execution}))
        environment = {"OMP_NUM_THREADS": str(self.cores), **self.environment}
        return JobProcess(
            given,
            environment=environment,
            command=self.command,
            python=self.python,
            ranks=run.spec.execution.gpus if run.spec.execution.device == "cuda" else 1,
            dies_with_parent=True,
        )


def _has_finished(run: PlannedRun) -> bool:
    """In an earlier call: what is to run again was moved aside before it was given to the scheduler."""
    state = run.folder.state()
    return state is not None and state.state == "finished"


def _wait_for_lock(run: PlannedRun) -> None:
    deadline = time.monotonic() + _LOCK_S
    while run.folder.is_locked() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
