"""A command is asked to stop, by SIGINT or SIGTERM, once or twice, itself or with its whole group."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice, product

from ditr.errors import ExitCode
from tests.torture.calls import Harm
from tests.torture.kills import Torture, Trial, in_words
from tests.torture.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Request:
    """How and when."""

    number: signal.Signals
    twice: bool
    to_group: bool
    at: Harm | float
    """A call of the process, which then asks itself, or a moment in seconds."""

    def __str__(self) -> str:
        whom = "group" if self.to_group else "process"
        return f"{self.number.name}{' twice' * self.twice} to {whom} {in_words(self.at)}"


_BETWEEN_S = 0.05
"""Of two signals that a user sends: long enough for the first to be answered."""


def stops(torture: Torture, phase: Phase, *, count: int, draw: random.Random) -> Iterator[Trial]:
    """All ways in turn, at random moments."""
    reference = torture.reference(phase)
    ways = list(product((signal.SIGINT, signal.SIGTERM), (False, True), (False, True)))
    calls = [(kind, count) for kind, count in reference.counts.items() if count]
    for index, (number, twice, to_group) in enumerate(islice(cycle(ways), count)):
        at: Harm | float = draw.uniform(0.0, reference.seconds)
        if index % 3 == 0 and calls:
            kind, most = draw.choice(calls)
            signals = (number,) * (1 + twice)
            at = Harm(kind=kind, number=draw.randint(1, most), signals=signals, to_group=to_group)
        yield stop(torture, phase, Request(number=number, twice=twice, to_group=to_group, at=at))


def stop(torture: Torture, phase: Phase, request: Request) -> Trial:
    """Exit code and message must be as documented, and the command, given again, as if it had never been stopped."""
    torture.stage.set(torture.before(phase))
    command = torture.start(phase, harm=request.at if isinstance(request.at, Harm) else None)
    if isinstance(request.at, float):
        time.sleep(request.at)
        command.send(request.number, to_group=request.to_group)
        if request.twice:
            time.sleep(_BETWEEN_S)
            command.send(request.number, to_group=request.to_group)
    ended = command.end()
    lost = [f"still there: {line}" for line in ended.left]
    if "Traceback" in ended.said:
        lost.append(f"a traceback: {ended.said[-400:]}")
    if ended.code == ExitCode.INTERRUPTED:
        said = "stopped at once" if request.twice and "at once" in ended.said else phase.stopped
        if said not in ended.said:
            lost.append(f"does not say that it stopped: {ended.said[-300:]!r}")
    elif ended.code != ExitCode.DONE:
        lost.append(f"ended with {ended.code}: {ended.said[-300:]!r}")
    lost += torture.mend(phase)
    return Trial(phase=phase.name, fault=str(request), reached=ended.code == ExitCode.INTERRUPTED, lost=tuple(lost))
