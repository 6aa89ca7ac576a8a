"""Runs that wait or run, whatever runs them: shown, stopped and read by other commands than the one that began them."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from ditr.cli import jobs
from ditr.cli.main import app
from ditr.paths import project_dir, runs_dir
from ditr.record.folder import Record
from ditr.runner.launchers import slurm, standing
from ditr.runner.launchers.tickets import JobFiles
from ditr.runner.plan import PlannedRun, plan
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry
from tests.runner.test_queue import wait_for

HOLD = """
import sys, time
from pathlib import Path
from ditr.record.recording import Identity, begin
from ditr.record.folder import Record
folder = Record(Path(sys.argv[1]))
with folder.lock():
    key = folder.path.name.rpartition("-")[2]
    begin(folder, Identity(run_key=key, spec_hash="0" * 64, name="baseline", variant="baseline", seed=0, kind="run"))
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        folder.append_log("heard it")
"""


@pytest.fixture
def runs() -> tuple[PlannedRun, ...]:
    runs_dir().mkdir(parents=True)
    spec = load_spec(project_dir() / "specs/baseline.yaml", registry=Registry(), overrides=["seeds=[0, 1, 2]"])
    return plan([spec], registry=Registry(), runs=runs_dir(), force=False)


def ask(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_runs_that_wait_are_listed_planned_as_such_and_stopped_by_any_command(
    runs: tuple[PlannedRun, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = list[str]()
    monkeypatch.setattr(standing, "squeue", lambda: {"12_0": "PENDING", "12_1": "PENDING", "13": "CANCELLED"})
    monkeypatch.setattr(standing, "cancel", cancelled.extend)
    files = JobFiles(runs_dir())
    with files.holding() as holder:
        files.give(runs[0], launcher="ray", holder=holder)
        files.give(runs[1], launcher="slurm", job="12_1")
        files.give(runs[2], launcher="slurm", job="13")
        lines = ask("ls").splitlines()
        assert {line.split("  ")[0] for line in lines[1:]} == {run.folder.path.name for run in runs[:2]}
        assert "queued on ray  " in "\n".join(lines)
        assert "queued on slurm, job 12_1" in "\n".join(lines)
        planned = ask("plan", str(project_dir() / "specs/baseline.yaml"), "--set", "seeds=[0, 1, 2]").splitlines()
        assert [line.rsplit("  ", 1)[1] for line in planned[1:4]] == ["in a queue already"] * 2 + ["new"]
        ask("stop", "baseline-s[01]-*")
    assert [files.is_asked_to_stop(run.key) for run in runs] == [True, True, False]
    assert cancelled == ["12_1"]
    assert "ray" not in ask("ls"), "gone with the command that held it"
    (files.folder / "vm-12.holder").touch()  # of one that was killed
    with files.holding():
        assert [ticket.launcher for ticket in files.tickets()] == ["slurm", "slurm"]
        assert len(list(files.folder.glob("*.holder"))) == 1


def test_a_run_of_another_command_is_followed_and_stopped(
    runs: tuple[PlannedRun, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_ASK_S", 0.2)
    folder = Record(runs[0].folder.path)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], cwd=project_dir())
    wait_for(runs_dir(), "*/state.json", count=1)
    folder.append_log("first words")

    def stop() -> None:
        standing.stop_runs(list(standing.runs_under_way(runs_dir()).values()), runs=runs_dir())

    threading.Timer(1.0, stop).start()
    said = ask("logs", "-f", "baseline-s0-*")
    assert [line.partition(" ")[2] for line in said.splitlines()] == ["first words", "heard it"]
    assert process.wait(10) == 0


def test_of_a_run_that_has_not_begun_the_words_of_its_job_are_shown(runs: tuple[PlannedRun, ...]) -> None:
    JobFiles(runs_dir()).give(runs[0], launcher="slurm", job="12_0")
    log = slurm.log_of(runs_dir(), "12_0")
    log.parent.mkdir()
    log.write_text("module: command not found\n")
    assert ask("logs", runs[0].folder.path.name) == "module: command not found\n"


def test_what_does_not_run_cannot_be_stopped(runs: tuple[PlannedRun, ...]) -> None:
    result = CliRunner().invoke(app, ["stop", "baseline-*"])
    assert "no run that waits or runs is called 'baseline-*'" in str(result.exception)
