"""This machine: so many jobs on the CPU, or one on each GPU that is named."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ditr.runner.launchers import Ending, Stage
from ditr.runner.launchers.process import JobProcess
from ditr.runner.launchers.tickets import JobFiles
from ditr.runner.plan import PlannedRun
from ditr.runner.slots import Slot


class LocalLauncher:
    """One job a slot. Jobs share the cores: each gets its part of them for threads and for loader processes.

    A job whose parent is killed goes on to its end, and until then a later call finds its run busy.
    """

    outlives = False

    def __init__(self, slots: Sequence[Slot], *, runs: Path) -> None:
        self._files = JobFiles(runs)
        self._held = ExitStack()
        self._free = list(slots)
        self._waiting: list[PlannedRun] = []
        self._running: dict[str, tuple[JobProcess, Slot]] = {}
        self._ended: dict[str, Ending] = {}
        self._cores = 1
        self._told = False

    def takes(self, run: PlannedRun) -> bool:
        return run.runs

    def submit(self, runs: Sequence[PlannedRun]) -> None:
        """Of them, as many as there are slots begin with the first look at their stages."""
        self._waiting += runs
        holder = self._held.enter_context(self._files.holding())
        for run in runs[len(self._free) :]:
            self._files.give(run, launcher="local", holder=holder)
        self._cores = max(1, len(os.sched_getaffinity(0)) // max(1, min(len(self._free), len(runs))))

    def stages(self) -> Mapping[str, Stage]:
        """Where a job has ended, the next begins."""
        for run in [run for run in self._waiting if self._files.is_asked_to_stop(run.key)]:
            self._waiting.remove(run)
            self._ended[run.key] = Ending(interrupted=True)
            self._files.forget([run.key])
        while self._waiting and self._free:
            run, slot = self._waiting.pop(0), self._free.pop(0)
            self._files.forget([run.key])
            self._running[run.key] = (self._start(run, slot), slot)
        for key, (job, slot) in list(self._running.items()):
            if job.has_ended:
                del self._running[key]
                self._free.append(slot)
                self._ended[key] = job.ending(told=self._told)
        if not self._waiting:
            self._held.close()
        waiting, running = dict.fromkeys(run.key for run in self._waiting), self._running
        return {**dict.fromkeys(waiting, "queued"), **dict.fromkeys(running, "running"), **self._ended}

    def stop(self) -> None:
        """Asks those that run, once."""
        self._end(signal.SIGINT)

    def abandon(self, *, at_once: bool) -> None:
        """Ends them all and waits."""
        self._end(signal.SIGKILL if at_once else signal.SIGINT)
        for job, _ in self._running.values():
            job.wait()

    def _end(self, number: signal.Signals) -> None:
        self._told = True
        self._ended |= {run.key: Ending(interrupted=True) for run in self._waiting}
        self._files.forget([run.key for run in self._waiting])
        self._waiting.clear()
        for job, _ in self._running.values():
            job.tell(number)

    def _start(self, run: PlannedRun, slot: Slot) -> JobProcess:
        changed = {"device": slot.device, "workers": min(run.spec.execution.workers, self._cores)}
        execution = run.spec.execution.model_copy(update=changed)
        given = replace(run, spec=run.spec.model_copy(update={"execution": execution}))
        environment = {"CUDA_VISIBLE_DEVICES": slot.gpu or "", "OMP_NUM_THREADS": str(self._cores)}
        return JobProcess(given, environment=environment, command=sys.argv[1:], ranks=slot.ranks)
