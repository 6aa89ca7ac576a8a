"""The real thing: twelve trainings on a Slurm of two nodes, one of which is killed; the numbers are those of this
machine, bit for bit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ditr.paths import project_dir
from ditr.record.folder import Record, records_in
from ditr.runner.launchers.tickets import JobFiles
from tests.e2e.shell import SMALL, options
from tools.local_slurm import PROGRAMS, LocalSlurm, local_slurm

pytestmark = pytest.mark.cluster
RUNS = 12
PROFILE = """
[profiles.slurm]
gpus = 0
cpus = 1
hours = 0.5
setup = ["export DITR_SEEN_BY_JOBS=1"]
"""


@dataclass(frozen=True)
class Lab:
    """A project and a cluster."""

    folder: Path
    slurm: LocalSlurm

    def start(self, *arguments: str, runs: str = "runs") -> subprocess.Popen[str]:
        """A command of ditr's, as typed in the project."""
        environment = os.environ | {
            "SLURM_CONF": str(self.slurm.conf),
            "PYTHONPATH": str(project_dir()),
            "DITR_RUNS": str(self.folder / runs),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "ditr.cli.main", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self, *arguments: str, runs: str = "runs") -> str:
        """What it says."""
        return self.start(*arguments, runs=runs).communicate(timeout=400)[0]

    def has_saved_on(self, node: str) -> bool:
        """Whether the run that this node works on has saved its state."""
        runs = self.folder / "runs"
        jobs = self.slurm.ask("squeue", "-h", "-r", "-w", node, "-t", "RUNNING", "-o", "%i").split()
        names = [ticket.name for ticket in JobFiles(runs).tickets() if ticket.job in jobs]
        return any(Record(runs / name).training_state.is_file() for name in names)

    def states(self) -> list[str]:
        states = [record.state() for record in records_in(self.folder / "runs")]
        return [state.state for state in states if state]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip("needs root, and slurm-wlm and munge of Debian's packages")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "ditr.toml").write_text(PROFILE)
    with local_slurm(tmp_path / "slurm") as slurm:
        yield Lab(folder, slurm)


def run_arguments(seeds: list[int], *more: str) -> list[str]:
    spec = project_dir() / "specs/baseline.yaml"
    return ["run", str(spec), *options((*SMALL, "execution.device=auto", f"seeds={seeds}", *more))]


def wait_until(holds: object, *, seconds: float, what: str) -> None:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def test_runs_of_a_killed_node_are_queued_again_and_every_number_is_that_of_this_machine(lab: Lab) -> None:
    seeds = list(range(RUNS))
    command = lab.start(*run_arguments(seeds), "--on", "slurm")
    wait_until(lambda: lab.states().count("running") == 2, seconds=240, what="no two nodes work")
    listed = lab.ask("ls")
    assert listed.count("running") == 2
    assert len(re.findall(r"queued on slurm, job \d+_\d+", listed)) == RUNS - 2 - lab.states().count("finished")
    wait_until(lambda: lab.has_saved_on("two"), seconds=240, what="nothing was saved")
    lab.slurm.kill_node("two")
    wait_until(
        lambda: "two down" in lab.slurm.ask("sinfo", "-h", "-o", "%N %T").replace("*", ""), seconds=60, what="up"
    )
    lab.slurm.start_node("two")
    said, _ = command.communicate(timeout=420)
    assert command.returncode == 0, said
    assert lab.states() == ["finished"] * RUNS
    restarts = [lab.slurm.ask("scontrol", "show", "job", "--oneliner").count(f"Restarts={count}") for count in (1, 2)]
    assert sum(restarts) >= 1, "the job of the killed node began again"
    local = lab.ask(*run_arguments(seeds), "--jobs", "2", runs="local")
    for record in records_in(lab.folder / "runs"):
        twin = lab.folder / "local" / record.path.name
        assert record.weights.read_bytes() == (twin / "checkpoints/model.safetensors").read_bytes(), local
        mine, its = (json.loads((folder / "result.json").read_text()) for folder in (record.path, twin))
        assert [mine[name] for name in ("ap", "ap50", "ap25")] == [its[name] for name in ("ap", "ap50", "ap25")]
    assert not JobFiles(lab.folder / "runs").tickets()
    rows = lab.ask("query", "select count(*), count(distinct ap50) > 0 from results where state = 'finished'")
    assert rows.splitlines()[1].split()[0] == str(RUNS), "the command told the views"


def test_a_run_whose_time_ends_is_queued_again_and_stopped_ones_go_on_when_asked(lab: Lab) -> None:
    command = lab.start(*run_arguments([0, 1, 2]), "--on", "slurm")
    wait_until(lambda: lab.states().count("running") == 2, seconds=240, what="no two nodes work")
    tickets = {ticket.seed: ticket for ticket in JobFiles(lab.folder / "runs").tickets()}
    lab.ask("stop", tickets[1].name, tickets[2].name)
    lab.slurm.ask("scancel", "--signal=USR2", tickets[0].job)  # what Slurm sends when the time is nearly over
    said, _ = command.communicate(timeout=400)
    assert command.returncode == 130, said
    assert "stopped and saved; to go on: ditr run" in said
    states = {record.path.name: record.state() for record in records_in(lab.folder / "runs")}
    assert {name: state.state for name, state in states.items() if state} == {
        tickets[0].name: "finished",
        tickets[1].name: "interrupted",
    }
    assert "Restarts=1" in lab.slurm.ask("scontrol", "show", "job", tickets[0].job)
    assert "finished before, skipped" in lab.ask(*run_arguments([0, 1]), "--on", "slurm")
    assert lab.states() == ["finished"] * 2
