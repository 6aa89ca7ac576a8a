"""Ctrl-C and SIGTERM in commands that have nothing to save: the first ends them in order, the second at once."""

from __future__ import annotations

import os
import signal
from types import FrameType

from ditr.errors import ExitCode

STOPPED = "stopped; no file is half written, the same command can be given again"
_AT_ONCE = b"\nstopped at once\n"


class Ending:
    """While a command runs, the answer to both signals: KeyboardInterrupt, and the end of the process."""

    def __init__(self) -> None:
        self.asked = False
        """Whether one came: whatever is raised from then on, it is because of that."""

    def listen(self) -> None:
        """From now on, but for Ctrl-C where whoever started this process has it ignored."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._answer)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os.write(2, _AT_ONCE)  # not through sys.stderr: its buffer may be in use where the signal came
            os._exit(ExitCode.INTERRUPTED)
        self.asked = True
        raise KeyboardInterrupt


def end_when_told() -> None:
    """From now on Ctrl-C and SIGTERM raise KeyboardInterrupt, also in a background shell, whose jobs ignore Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
