"""Ctrl-C and SIGTERM: the first asks the run to save and stop, the second ends it at once."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType

from ditr.errors import Interrupted
from ditr.progress import Progress

STOPPING = b"\nstopping: this step ends and is saved; once more stops at once\n"


class StopSignal:
    """While entered, true once SIGINT or SIGTERM came, answered by ``says``; a second raises KeyboardInterrupt."""

    def __init__(self, *, says: bytes = STOPPING) -> None:
        self.asked = False
        self.insisted = False
        """Whether a second one came: whatever is raised from then on, it is because of that."""
        self._says = says
        self._previous: dict[signal.Signals, object] = {}

    def __call__(self) -> bool:
        return self.asked

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def stopping(self, progress: Progress) -> Progress:
        """``progress`` that raises ``Interrupted`` when asked to stop: for work that can be cut anywhere."""

        def report(what: str, done: int, total: int) -> None:
            progress(what, done, total)
            if self.asked:
                raise Interrupted

        return report

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.insisted = True
            raise KeyboardInterrupt
        self.asked = True
        # Not through sys.stderr: its buffer may be in use where the signal came.
        os.write(2, self._says)
