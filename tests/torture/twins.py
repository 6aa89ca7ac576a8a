"""Two processes begin the same command at the same moment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

from ditr.errors import ExitCode
from tests.torture.judge import judge
from tests.torture.kills import Torture, Trial
from tests.torture.phases import Phase
from tests.torture.warm import in_fork


def twins(torture: Torture, phase: Phase, *, count: int, draw: random.Random) -> Iterator[Trial]:
    """Both do what was asked, or one of them says who does; the project is as one command leaves it."""
    for index in range(count):
        torture.reference(phase)
        torture.stage.set(torture.before(phase))
        both = [torture.start(phase, out=f"out{number}.txt") for number in range(2)]
        lost = []
        for command in both:
            ended = command.end()
            busy = phase.busy is not None and phase.busy in ended.said
            if ended.code != ExitCode.DONE and not (busy and ended.code == ExitCode.MISTAKE):
                lost.append(f"ended with {ended.code}: {ended.said[-400:]!r}")
        lost += in_fork(partial(judge, torture.stage.now, torture.reference(phase).facts))
        yield Trial(phase=phase.name, fault=f"two at once, {index}", reached=True, lost=tuple(lost))
