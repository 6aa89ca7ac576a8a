"""Workers of a pool whose parent is killed end too, and none of them answers Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

POOL = """
import multiprocessing, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from ditr.workers import born_deaf, end_with_parent
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent)
    with born_deaf(signal.SIGINT):
        asked = pool.submit(os.getpid)
    print(asked.result(), flush=True)
    os.kill(asked.result(), signal.SIGINT)
    assert pool.submit(abs, -1).result() == 1, "it did not hear that"
    print("deaf", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_hears_no_interrupt_and_ends_with_its_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert parent.stdout.readline() == "deaf\n"
    assert parent.returncode == -signal.SIGKILL
    until = time.monotonic() + 10
    while is_running(worker):
        assert time.monotonic() < until, "it waits for work for ever"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
