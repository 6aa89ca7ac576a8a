"""What Slurm is asked for, and what is made of its answers; its programs are stand-ins that accept everything."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ditr.errors import DitrError
from ditr.profiles import LAUNCHERS, SlurmProfile
from ditr.record.recording import begin
from ditr.runner.launchers import Ending, slurm
from ditr.runner.launchers.choice import launcher_for, require_place
from ditr.runner.launchers.slurm import SlurmLauncher, squeue
from ditr.runner.launchers.standing import held_tickets
from ditr.runner.launchers.tickets import JobFiles
from ditr.runner.plan import PlannedRun
from tests.runner.test_queue import planned


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    stand_in(folder, "srun", "exit 1")
    stand_in(folder, "sbatch", f'cat "$1" > {tmp_path}/sbatch.sh; echo Submitted batch job 12')
    return folder


def stand_in(folder: Path, name: str, line: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{line}\n")
    (folder / name).chmod(0o755)


def test_a_profile_is_what_sbatch_is_asked_for(tmp_path: Path, programs: Path) -> None:
    profile = SlurmProfile(
        partition="gpu",
        gpus=1,
        cpus=8,
        memory_gb=64,
        hours=1.5,
        runs_a_job=2,
        jobs_at_once=2,
        container="apptainer exec --nv ditr.sif",
        setup=("module load cuda", "export DITR_CACHE=/local/ditr"),
        options={"account": "lab", "constraint": "a100"},
    )
    runs = planned(tmp_path / "runs", 0, 1, 2, 3, 4)
    (tmp_path / "runs").mkdir()
    SlurmLauncher(profile, runs=tmp_path / "runs").submit(runs)
    lines = (tmp_path / "sbatch.sh").read_text().splitlines()
    wanted = {
        "--partition=gpu", "--gpus-per-node=1", "--cpus-per-task=8", "--mem=64GB", "--time=90", "--array=0-2%2",
        "--account=lab", "--constraint=a100", "--requeue", "--signal=USR2@120",
    }  # fmt: skip
    assert wanted <= {line.removeprefix("#SBATCH ") for line in lines}
    assert lines.index("module load cuda") + 1 == lines.index("export DITR_CACHE=/local/ditr")
    (command,) = [line for line in lines if line.startswith("srun ")]
    assert "apptainer exec --nv ditr.sif python -u -m submitit.core._submit" in command
    assert "--cpus-per-task=8" in command
    jobs = {ticket.name.split("-")[1]: ticket.job for ticket in JobFiles(tmp_path / "runs").tickets()}
    assert jobs == {"s0": "12_0", "s1": "12_0", "s2": "12_1", "s3": "12_1", "s4": "12_2"}


def test_what_slurm_refuses_is_the_users_to_change(tmp_path: Path, programs: Path) -> None:
    stand_in(programs, "sbatch", "echo Invalid account >&2; exit 1")
    with pytest.raises(DitrError, match="Slurm refuses the jobs"):
        SlurmLauncher(SlurmProfile(), runs=tmp_path).submit(planned(tmp_path, 0))


def test_a_job_that_is_gone_without_a_word_is_told_by_what_it_left(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_ASK_S", 0.0)
    monkeypatch.setattr(slurm, "_GONE_S", 0.0)
    stand_in(programs, "squeue", "printf '12_0|PENDING\\n12_1|RUNNING\\n12_2|CANCELLED\\n12_3|NODE_FAIL\\n'")
    runs = planned(tmp_path, 0, 1, 2, 3)
    launcher = SlurmLauncher(SlurmProfile(), runs=tmp_path)
    launcher.submit(runs)
    begin(runs[3].folder, runs[3].identity(kind="run", seed=3))
    stages = [launcher.stages()[run.key] for run in runs]
    assert stages[:2] == ["queued", "running"]
    assert stages[2] == Ending(failure="Slurm's job 12_2 is gone (CANCELLED)")
    assert stages[3] == Ending(interrupted=True)
    stand_in(programs, "squeue", "exit 1")
    assert squeue() is None
    assert [launcher.stages()[run.key] for run in runs] == stages, "a controller that is away says nothing new"


@pytest.mark.parametrize(("extra", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_launcher_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DitrError) as caught:
        launcher_for(LAUNCHERS[extra](), runs=tmp_path).submit(planned(tmp_path, 0))
    assert caught.value.fix == f"pip install 'ditr[{extra}]'"


def test_the_same_command_watches_what_it_gave_to_slurm_before(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_ASK_S", 0.0)
    stand_in(programs, "squeue", "printf '12_0|PENDING\\n12_1|RUNNING\\n'")
    SlurmLauncher(SlurmProfile(), runs=tmp_path).submit(planned(tmp_path, 0, 1))
    (tmp_path / "sbatch.sh").unlink()
    queued = held_tickets(tmp_path)
    runs = [replace(run, status="queued") if run.key in queued else run for run in planned(tmp_path, 0, 1, 2)]
    launcher = SlurmLauncher(SlurmProfile(), runs=tmp_path)
    assert [run.seed for run in runs if launcher.takes(run)] == [0, 1, 2]
    launcher.submit(runs[:2])
    assert not (tmp_path / "sbatch.sh").exists(), "they are not given to it twice"
    assert list(launcher.stages().values()) == ["queued", "running"]
    JobFiles(tmp_path).note_ending(runs[0].key, Ending())
    assert list(launcher.stages().values()) == [Ending(), "running"]
    assert [ticket.key for ticket in JobFiles(tmp_path).tickets()] == [runs[1].key]


def test_a_run_that_needs_another_place_than_a_job_has_is_refused(tmp_path: Path) -> None:
    (run,) = planned(tmp_path, 0)

    def asking(**changed: object) -> list[PlannedRun]:
        execution = run.spec.execution.model_copy(update=changed)
        return [replace(run, spec=run.spec.model_copy(update={"execution": execution}))]

    require_place(asking(device="auto", gpus=2), profile=SlurmProfile(gpus=2))
    require_place(asking(device="auto", gpus=2), profile=SlurmProfile(gpus=0))
    with pytest.raises(DitrError, match=r"execution\.gpus is 2, and a job of the profile has 1"):
        require_place(asking(device="auto", gpus=2), profile=SlurmProfile(gpus=1))
    with pytest.raises(DitrError, match=r"execution\.device is cpu, and a job of the profile runs on GPUs"):
        require_place(asking(device="cpu"), profile=SlurmProfile())
