"""Slurm, through submitit: one job a run or a few, as arrays; one that runs out of time saves and is queued again.

What Slurm and submitit do to a job is in (docs/reference/clusters.md, Slurm's signals and queue; Submitit).
"""

from __future__ import annotations

import getpass
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ditr.errors import Code, DitrError
from ditr.profiles import SlurmProfile
from ditr.runner.job_text import job_text
from ditr.runner.launchers import Ending, Stage, process
from ditr.runner.launchers.attendant import Attendant
from ditr.runner.launchers.handover import hand_over
from ditr.runner.launchers.tickets import JobFiles
from ditr.runner.plan import PlannedRun

CLUSTER = "slurm"
"""Which of submitit's executors."""
_WAITING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "RESV_DEL_HOLD"}
_RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING"}
_ASK_S = 10.0
"""Between two questions to the controller, which all users share."""
_GONE_S = 60.0
"""How long a job may be unknown before it is taken for gone: what it wrote last may take a while to be seen here."""
_SAVE_S = 120
"""Of a job's time, kept for saving."""
_GRACE_S = 600.0
_TIMEOUTS = 1000
"""So often a job may run out of time."""
_ARRAY = 1000
"""Jobs of one array: Slurm's own limit, where nobody changed it."""


class SlurmTask(Attendant):
    """What submitit pickles, calls on a node and asks for what goes on."""

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self.stop())


class SlurmLauncher:
    """Jobs that outlive the command; any other command finds them by their tickets."""

    outlives = True

    def __init__(self, profile: SlurmProfile, *, runs: Path) -> None:
        self._profile = profile
        self._files = JobFiles(runs)
        self._before = {ticket.key: ticket.job for ticket in self._files.tickets() if ticket.launcher == "slurm"}
        self._jobs: dict[str, str] = {}
        self._runs: dict[str, PlannedRun] = {}
        self._stages: dict[str, Stage] = {}
        self._seen: dict[str, float] = {}
        self._asked = -_ASK_S

    def takes(self, run: PlannedRun) -> bool:
        """Also what a command before gave to Slurm, and has not ended."""
        return run.runs or (run.status in ("queued", "busy") and run.key in self._before)

    def submit(self, runs: Sequence[PlannedRun]) -> None:
        """One array a thousand jobs.

        Raises
        ------
        DitrError: submitit or Slurm is not here, or Slurm refuses the jobs.
        """
        for run in runs:
            self._runs[run.key], self._seen[run.key] = run, time.monotonic()
        self._jobs |= {run.key: self._before[run.key] for run in runs if not run.runs}
        runs = [run for run in runs if run.runs]
        executor = _executor(self._profile, folder=self._files.folder / "slurm")
        at_once = self._profile.runs_a_job
        groups = [runs[first : first + at_once] for first in range(0, len(runs), at_once)]
        for first in range(0, len(groups), _ARRAY):
            part = groups[first : first + _ARRAY]
            tasks = [self._task(group) for group in part]
            for group, job in zip(part, _submitted(executor, tasks), strict=True):
                for run in group:
                    self._files.give(run, launcher="slurm", job=job)
                    self._jobs[run.key] = job

    def stages(self) -> Mapping[str, Stage]:
        """Asks the controller now and then; a job that is gone without a word is told by what it left."""
        if time.monotonic() - self._asked >= _ASK_S:
            states = squeue()
            self._asked = time.monotonic()
            for key in self._jobs:
                if not isinstance(self._stages.get(key), Ending):
                    self._stages[key] = self._stage(key, states)
        return self._stages

    def stop(self) -> None:
        """Never asked for: the jobs outlive the command."""

    def abandon(self, *, at_once: bool) -> None:
        """They go on."""

    def _task(self, group: Sequence[PlannedRun]) -> SlurmTask:
        profile = self._profile
        given = hand_over(group, profile=profile, files=self._files)
        return SlurmTask(
            texts=tuple(map(job_text, given)),
            command=tuple(sys.argv[1:]),
            python=("python",) if profile.container else process.PYTHON,
            cores=max(1, profile.cpus // len(group)),
            environment={},
            grace_s=_GRACE_S,
        )

    def _stage(self, key: str, states: Mapping[str, str] | None) -> Stage:
        ending = self._files.ending(key)
        if ending is not None:
            self._files.forget([key])
            return ending
        state = None if states is None else states.get(self._jobs[key])
        if states is None or state in _WAITING | _RUNNING:
            self._seen[key] = time.monotonic()
            return "running" if state in _RUNNING else "queued" if state else self._stages.get(key, "queued")
        if time.monotonic() - self._seen[key] < _GONE_S:
            return self._stages.get(key, "queued")
        return self._gone(key, state)

    def _gone(self, key: str, state: str | None) -> Ending:
        """Of a job that could not note how it ended: cancelled while it waited, or killed with its node."""
        if self._files.is_asked_to_stop(key):
            self._files.forget([key])
            return Ending(interrupted=True)
        record = self._runs[key].folder.state()
        if record is not None and record.state != "failed":
            return Ending(interrupted=record.state != "finished")
        how = f"Slurm's job {self._jobs[key]} is gone" + (f" ({state})" if state else "")
        log = log_of(self._files.runs, self._jobs[key])
        return Ending(failure=f"{how}; what it said last is in {log}" if log.is_file() else how)


def squeue() -> dict[str, str] | None:
    """State of every job of this user that the controller still knows, by the job's number; None if it gives no answer
    now."""
    command = ("squeue", "--user", getpass.getuser(), "--noheader", "--array", "--states=all", "--format=%i|%T")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = (line.strip().split("|") for line in answer.splitlines() if "|" in line)
    return dict(pairs)


def is_waiting(job: str, states: Mapping[str, str] | None) -> bool:
    """By the answer of ``squeue``; without one, as far as anybody knows."""
    return states is None or states.get(job) in _WAITING


def is_running(job: str, states: Mapping[str, str] | None) -> bool:
    """By the answer of ``squeue``."""
    return states is not None and states.get(job) in _RUNNING


def cancel(jobs: Sequence[str]) -> None:
    """Takes those of the jobs out of the queue that still wait."""
    if jobs:
        subprocess.run(("scancel", "--state=PENDING", *jobs), check=False, capture_output=True, timeout=60)


def log_of(runs: Path, job: str) -> Path:
    """What Slurm, the set-up lines and submitit said."""
    return JobFiles(runs).folder / "slurm" / f"{job}_0_log.out"


def _executor(profile: SlurmProfile, *, folder: Path) -> Any:
    try:
        from submitit import AutoExecutor
    except ImportError:
        fix = "pip install 'ditr[slurm]'"
        raise DitrError("--on slurm needs submitit, which is not installed", code=Code.ENVIRONMENT, fix=fix) from None
    if CLUSTER == "slurm" and shutil.which("sbatch") is None:
        fix = "Call the command on a node from which jobs are submitted, or use --jobs, --gpus or --on ray."
        raise DitrError("there is no sbatch here", code=Code.ENVIRONMENT, fix=fix)
    executor = AutoExecutor(
        folder=folder,
        cluster=CLUSTER,
        slurm_max_num_timeout=_TIMEOUTS,
        slurm_python=f"{profile.container} python" if profile.container else None,
    )
    executor.update_parameters(
        name="ditr",
        timeout_min=max(1, round(profile.hours * 60)),
        cpus_per_task=profile.cpus,
        gpus_per_node=profile.gpus or None,
        mem_gb=profile.memory_gb,
        stderr_to_stdout=True,
        slurm_partition=profile.partition,
        slurm_array_parallelism=profile.jobs_at_once,
        slurm_signal_delay_s=_SAVE_S,
        slurm_setup=list(profile.setup) or None,
        slurm_srun_args=[f"--cpus-per-task={profile.cpus}"],  # since Slurm 22.05 a step does not take the job's
        slurm_additional_parameters={"requeue": True, **profile.options},
    )
    return executor


def _submitted(executor: Any, tasks: Sequence[SlurmTask]) -> list[str]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        return [job.job_id for job in executor.submit_array(tasks)]
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        fix = "Change the profile in ditr.toml; `sbatch --test-only` tries what Slurm takes."
        raise DitrError(f"Slurm refuses the jobs: {error}", code=Code.ENVIRONMENT, fix=fix) from error
