"""Runs through submitit's own executor: preempted they save, are queued again and go on. The work is a small script."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import submitit
from submitit.local.local import LocalJob

from ditr.profiles import SlurmProfile
from ditr.record.views.teller import Teller
from ditr.runner.launchers import process, slurm
from ditr.runner.launchers.slurm import SlurmLauncher, SlurmTask
from ditr.runner.queue import Look, Standing, run_at_once
from ditr.runner.run import RunOutcome
from ditr.runner.stop import StopSignal
from tests.runner.test_queue import WORK, planned, silent

PROFILE = SlurmProfile(gpus=0, cpus=2, hours=1)


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[LocalJob[None]]]:
    """Of processes of this machine in place of Slurm's, whose numbers are those of the processes."""
    submitted: list[LocalJob[None]] = []
    submit = submitit.AutoExecutor.submit_array

    def keep(executor: submitit.AutoExecutor, tasks: Sequence[SlurmTask]) -> list[LocalJob[None]]:
        submitted.extend(submit(executor, tasks))
        return submitted

    def alive() -> dict[str, str]:
        return {job.job_id: "RUNNING" for job in submitted if not job.done()}

    script = tmp_path / "job.py"
    script.write_text(WORK)
    monkeypatch.setattr(process, "PYTHON", (sys.executable, str(script)))
    monkeypatch.setattr(slurm, "CLUSTER", "local")
    monkeypatch.setattr(slurm, "squeue", alive)
    monkeypatch.setattr(slurm, "_ASK_S", 0.1)
    monkeypatch.setattr(submitit.AutoExecutor, "submit_array", keep)
    yield submitted
    for job in submitted:
        process_of(job).wait(20)


def process_of(job: LocalJob[None]) -> subprocess.Popen[bytes]:
    """That which keeps the job's own under way."""
    assert job._process is not None
    return job._process


def run(runs: Path, *seeds: int, profile: SlurmProfile = PROFILE, look: Look = silent) -> tuple[RunOutcome, ...]:
    with StopSignal() as stop:
        launcher = SlurmLauncher(profile, runs=runs)
        return run_at_once(planned(runs, *seeds), launcher=launcher, teller=Teller((), say=print), stop=stop, look=look)


def test_a_run_that_fails_or_dies_leaves_the_others_alone_and_is_told_as_on_this_machine(tmp_path: Path) -> None:
    found = run(tmp_path, 0, 1, 2, 3, profile=PROFILE.model_copy(update={"runs_a_job": 4}))
    assert [outcome.error is None for outcome in found] == [True, False, False, True]
    assert "seed 1 has no luck" in str(found[1].error)
    assert "was ended by signal 9 (Killed), as the kernel does when memory runs out" in str(found[2].error)
    assert [outcome.state.state for outcome in found if outcome.state] == ["finished", "failed", "failed", "finished"]
    assert not list((tmp_path / ".jobs").glob("*.json")), "what was collected is no ticket any more"


def test_a_preempted_job_saves_is_queued_again_and_goes_on_to_its_end(
    tmp_path: Path, jobs: list[LocalJob[None]]
) -> None:
    pids = list[int]()

    def preempt(standing: Standing) -> None:
        (state,) = [run.folder.state() for run in planned(tmp_path, 80)]
        if state is not None and state.state == "running" and state.pid not in pids:
            pids.append(state.pid)
            if len(pids) == 1:
                (task,) = psutil.Process(process_of(jobs[0]).pid).children()
                task.send_signal(signal.SIGUSR2)

    (outcome,) = run(tmp_path, 80, look=preempt)
    assert outcome.error is None
    assert outcome.state is not None
    assert (outcome.state.state, len(pids)) == ("finished", 2)
    (sessions,) = tmp_path.glob("baseline-s80-*/sessions.txt")
    assert sessions.read_text() == "0 stopped\n1 finished\n"
