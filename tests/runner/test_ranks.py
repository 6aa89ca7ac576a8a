"""Ranks that torch's launcher starts: how they end, and what is left. The work is a small script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ditr.paths import project_dir

START = """
import sys
from ditr.runner.launchers import process
process.JOB = ("-c", {work!r})
from ditr.cli import ranks
sys.exit(ranks.main())
"""
WORK = """
import os, signal, sys, time
from pathlib import Path
folder, how, rank = Path(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
(folder / f"{rank}.pid").write_text(str(os.getpid()))
said = sys.stdin.read() if rank == 0 else ""
(folder / f"{rank}.said").write_text(said + " of " + os.environ["WORLD_SIZE"])
def stop(number, frame):
    (folder / f"{rank}.saved").write_text(signal.Signals(number).name)
    sys.exit(0)
for number in (signal.SIGINT, signal.SIGUSR2): signal.signal(number, stop)
while len(list(folder.glob("*.said"))) < 2: time.sleep(0.05)
if how == "mistake" and rank == 1: sys.exit(2)
if how == "done": sys.exit(0)
(folder / f"{rank}.ready").touch()
time.sleep(60)
"""


def start(folder: Path, how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", START.format(work=WORK), "2", str(folder), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=project_dir(),
        env=os.environ | {"PYTHONPATH": str(project_dir())},
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write("the job")
    process.stdin.close()
    return process


def pid_of(folder: Path, rank: int) -> int:
    deadline = time.monotonic() + 60
    while not (folder / f"{rank}.ready").exists():
        assert time.monotonic() < deadline, "the ranks do not begin"
        time.sleep(0.05)
    return int((folder / f"{rank}.pid").read_text())


@pytest.mark.slow
def test_ranks_end_together_if_one_dies_or_they_are_stopped(tmp_path: Path) -> None:
    """Both at once: most of the time each waits for torch to be imported."""
    running, (stopped, killed) = {}, (tmp_path / "stopped", tmp_path / "killed")
    for folder in (stopped, killed):
        folder.mkdir()
        running[folder.name] = start(folder, folder.name)
    other, victim = pid_of(killed, 0), pid_of(killed, 1)
    os.kill(victim, signal.SIGKILL)
    pid_of(stopped, 0), pid_of(stopped, 1)
    running["stopped"].send_signal(signal.SIGUSR2)
    assert {how: process.wait(60) for how, process in running.items()} == {"stopped": 0, "killed": 1}
    assert not psutil.pid_exists(other)
    saved = {file.name: file.read_text() for file in stopped.glob("*.saved")}
    assert saved == {"0.saved": "SIGUSR2", "1.saved": "SIGUSR2"}
    said = {file.name: file.read_text() for file in stopped.glob("*.said")}
    assert said == {"0.said": "the job of 2", "1.said": " of 2"}, "the rank that leads reads the job"


@pytest.mark.long
@pytest.mark.parametrize(("how", "code"), [("done", 0), ("mistake", 2)])
def test_they_end_with_the_code_of_the_rank_that_says_why(how: str, code: int, tmp_path: Path) -> None:
    assert start(tmp_path, how).wait(60) == code
