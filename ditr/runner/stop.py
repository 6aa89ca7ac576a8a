"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR2: the first asks the run to save and stop, a second ends it at once."""

from __future__ import annotations

import os
import signal
import stat
from types import FrameType, TracebackType

from ditr.errors import Interrupted
from ditr.progress import Progress
from ditr.ranks import ALONE, Ranks

STOPPING = b"\nstopping: this step ends and is saved; once more stops at once\n"


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
"""Of a terminal, of a machine that is shut down, of a terminal that is gone, of a cluster that wants its place back."""


def heard_signals() -> tuple[signal.Signals, ...]:
    """``SIGNALS``, without SIGHUP where this process was started by nohup."""
    deaf = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return tuple(number for number in SIGNALS if not (deaf and number == signal.SIGHUP))


def hang_up() -> None:
    """The answer to SIGHUP: it is heard no more, for shells repeat it, and what a terminal was told goes nowhere.

    Writing to a terminal that is gone is an error, which would end the work in the place of the stop.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)


class StopSignal:
    """While entered, true once one of ``SIGNALS`` came, answered by ``says``; a second raises KeyboardInterrupt.

    SIGUSR2 and SIGHUP only ever ask: a cluster, or a shell, sends them to every process of a job, and who started that
    passes them on.
    """

    def __init__(self, *, says: bytes = STOPPING) -> None:
        self.asked = False
        self.insisted = False
        """Whether a second one came: whatever is raised from then on, it is because of that."""
        self._says = says
        self._previous: dict[signal.Signals, object] = {}

    def __call__(self) -> bool:
        return self.asked

    def __enter__(self) -> StopSignal:
        for number in heard_signals():
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def asked_of(self, ranks: Ranks) -> bool:
        """Whether one of the ranks was asked: then all of them are, and they stop at the same place."""
        self.asked = ranks.any(self.asked)
        return self.asked

    def stopping(self, progress: Progress, *, ranks: Ranks = ALONE) -> Progress:
        """``progress`` that raises ``Interrupted`` when asked to stop: for work that can be cut anywhere.

        Of several ``ranks`` each calls it as often as the others.
        """

        def report(what: str, done: int, total: int) -> None:
            progress(what, done, total)
            if self.asked_of(ranks):
                raise Interrupted

        return report

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            hang_up()
        if self.asked and number in (signal.SIGHUP, signal.SIGUSR2):
            return
        if self.asked:
            self.insisted = True
            raise KeyboardInterrupt
        self.asked = True
        # Not through sys.stderr: its buffer may be in use where the signal came.
        os.write(2, self._says)
