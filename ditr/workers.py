"""What a process that works for another one does first."""

from __future__ import annotations

import multiprocessing
import os
import threading


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
