"""Processes that read for a training which is no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

KILLED = """
import os, signal
from torch.utils.data import DataLoader
from ditr.data.loading import _begin_worker, worker_context

context = worker_context()
samples = iter(DataLoader(range(1000), num_workers=2, multiprocessing_context=context, worker_init_fn=_begin_worker))
next(samples), next(samples)
print(*(worker.pid for worker in samples._workers), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_training_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = [int(word) for word in process.stdout.readline().split()]
    assert process.returncode == -signal.SIGKILL
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    try:
        while left := [worker for worker in workers if Path(f"/proc/{worker}").exists()]:
            assert time.monotonic() < deadline, f"workers {left} wait for one that was killed"
            time.sleep(0.05)
    finally:
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
