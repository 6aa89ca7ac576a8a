"""Processes that work for this one: who starts them answers Ctrl-C for them, and they end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def born_deaf(*numbers: signal.Signals) -> Iterator[None]:
    """Processes that are started meanwhile do not hear these signals, not even while they start.

    Ctrl-C reaches every process of the terminal, and a cluster's SIGTERM every process of a group.
    """
    resource_tracker.ensure_running()  # which would unblock SIGINT, were it started meanwhile
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Ends this process when the one that it works for has died, even if it was killed.

    A pool's workers would wait for its next task for ever; torch's own watchdog looks at the parent's id, which is that
    of the server they are forked by, and the server waits for its workers.
    """
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker waits for its parent"
    parent.join()
    os._exit(1)
