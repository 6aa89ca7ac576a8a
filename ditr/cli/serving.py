"""Ctrl-C, SIGTERM and SIGHUP in commands that have nothing to save: the first ends them, the second at once."""

from __future__ import annotations

import os
import signal
from types import FrameType

from ditr.errors import ExitCode
from ditr.runner.stop import hang_up

STOPPED = "stopped; no file is half written, the same command can be given again"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AT_ONCE = b"\nstopped at once\n"


class StopRequest:
    """While a command runs, the answer to the signals: KeyboardInterrupt, and the end of the process."""

    def __init__(self) -> None:
        self.asked = False
        """Whether one came: whatever is raised from then on, it is because of that."""

    def listen(self) -> None:
        """From now on, but for those that whoever started this process has ignored, such as nohup."""
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._answer)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            hang_up()
        if self.asked and number != signal.SIGHUP:
            os.write(2, _AT_ONCE)  # not through sys.stderr: its buffer may be in use where the signal came
            os._exit(ExitCode.INTERRUPTED)
        self.asked = True
        raise KeyboardInterrupt


def end_when_told() -> None:
    """From now on the signals raise KeyboardInterrupt, Ctrl-C also in a background shell, whose jobs ignore it."""
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGHUP:
        hang_up()
    raise KeyboardInterrupt
