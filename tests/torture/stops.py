"""A command is asked to stop, by SIGINT or SIGTERM, once or twice, itself or with its whole group."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ditr.errors import ExitCode
from tests.torture.kills import Torture, Trial
from tests.torture.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Request:
    """How and when."""

    number: signal.Signals
    twice: bool
    to_group: bool
    after_s: float

    def __str__(self) -> str:
        whom = "group" if self.to_group else "process"
        return f"{self.number.name}{' twice' * self.twice} to {whom} after {self.after_s:.2f} s"


_BETWEEN_S = 0.05
"""Of two signals that a user sends: long enough for the first to be answered."""


def stops(torture: Torture, phase: Phase, *, count: int, draw: random.Random) -> Iterator[Trial]:
    """All ways in turn, at random moments."""
    reference = torture.reference(phase)
    ways = [(number, twice, group) for number in (signal.SIGINT, signal.SIGTERM) for twice in (False, True) for group in (False, True)]
    for index in range(count):
        number, twice, group = ways[index % len(ways)]
        yield _stop(torture, phase, Request(number=number, twice=twice, to_group=group, after_s=draw.uniform(0.0, reference.seconds)))


def _stop(torture: Torture, phase: Phase, request: Request) -> Trial:
    torture.stage.set(torture.before(phase))
    command = torture.start(phase)
    time.sleep(request.after_s)
    command.send(request.number, to_group=request.to_group)
    if request.twice:
        time.sleep(_BETWEEN_S)
        command.send(request.number, to_group=request.to_group)
    ended = command.end()
    lost = [f"still there: {line}" for line in ended.left]
    if "Traceback" in ended.said:
        lost.append(f"a traceback: {ended.said[-400:]}")
    if ended.code == ExitCode.INTERRUPTED:
        if "stopped" not in ended.said:
            lost.append(f"does not say that it stopped: {ended.said[-300:]!r}")
    elif ended.code != ExitCode.DONE:
        lost.append(f"ended with {ended.code}: {ended.said[-300:]!r}")
    lost += torture.mend(phase)
    return Trial(phase=phase.name, fault=str(request), reached=ended.code == ExitCode.INTERRUPTED, lost=tuple(lost))
