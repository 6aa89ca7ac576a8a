"""A command is killed at a call or at a moment, then given again: what of it was lost?"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.torture.calls import HARMED, Calls, Harm
from tests.torture.judge import Facts, facts_of, half_files, judge, saved_steps
from tests.torture.phases import PHASES, Phase, Stage
from tests.torture.project import write_project
from tests.torture.warm import Command, Ended, in_fork, wait_for_those_at


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the command does when nothing harms it."""

    facts: Facts
    counts: dict[str, int]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One harm."""

    phase: str
    fault: str
    reached: bool
    """Whether it came: a call need not be made as often in another run, nor a command take as long."""
    lost: tuple[str, ...]
    """In words; nothing is what is wanted."""


@dataclass
class Torture:
    """The project in a folder, and what a command of it leaves."""

    base: Path
    calls: Calls
    references: dict[str, Reference] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stage = Stage(self.base)
        if not self.stage.has("nothing"):
            write_project(self.base / "nothing")

    def before(self, phase: Phase) -> str:
        """Name of what the phase's command finds; made where it is not there."""
        if phase.after is None:
            return "nothing"
        self.reference(PHASES[phase.after])
        return phase.after

    def reference(self, phase: Phase) -> Reference:
        if phase.name not in self.references:
            self.stage.set(self.before(phase))
            ended = self.run(phase)
            assert ended.code == 0, ended.said
            wrong = in_fork(partial(judge, self.stage.now, in_fork(partial(facts_of, self.stage.now))))
            assert not wrong, wrong
            self.stage.keep(phase.name)
            facts = in_fork(partial(facts_of, self.stage.now))
            self.references[phase.name] = Reference(facts=facts, counts=ended.counts, seconds=ended.seconds)
        return self.references[phase.name]

    def start(self, phase: Phase, *, harm: Harm | None = None, out: str = "out.txt") -> Command:
        return Command(
            phase.arguments(self.stage.now),
            at=self.stage.now,
            out=self.base / out,
            calls=self.calls,
            harm=harm,
            cores=phase.cores,
        )

    def run(self, phase: Phase) -> Ended:
        return self.start(phase).end()

    def kill(self, phase: Phase, harm: Harm | float) -> Trial:
        """At a call, or after so many seconds."""
        self.reference(phase)
        self.stage.set(self.before(phase))
        command = self.start(phase, harm=harm if isinstance(harm, Harm) else None)
        if isinstance(harm, float):
            time.sleep(harm)
            command.send(signal.SIGKILL)
        ended = command.end()
        reached = ended.code == -signal.SIGKILL
        lost = [f"still there: {line}" for line in ended.left]
        if not reached and ended.code != 0:
            lost.append(f"not harmed, and ended with {ended.code}: {ended.said[-500:]}")
        lost += self.mend(phase)
        return Trial(phase=phase.name, fault=in_words(harm), reached=reached, lost=tuple(lost))

    def mend(self, phase: Phase) -> list[str]:
        """Gives the command again; what is wrong with what that finds and leaves."""
        project, wanted = self.stage.now, self.reference(phase)
        wait_for_those_at(project)
        lost = in_fork(partial(half_files, project))
        saved = sum(in_fork(partial(saved_steps, project)).values())
        whole = (path for pattern in phase.keeps for path in project.glob(pattern) if not path.name.startswith("."))
        files = {path: path.stat().st_ino for path in whole}
        again = self.run(phase)
        if again.code != 0:
            return [*lost, f"given again, it ended with {again.code}: {again.said[-800:]}"]
        before = sum(in_fork(partial(saved_steps, self.base / self.before(phase))).values())
        if again.counts.get("step", 0) != (due := max(0, wanted.counts.get("step", 0) - (saved - before))):
            lost.append(f"{again.counts.get('step', 0)} steps were made where {due} were due")
        lost += [f"made twice: {path}" for path, inode in files.items() if path.stat().st_ino != inode]
        return lost + in_fork(partial(judge, project, wanted.facts))


def kills(torture: Torture, phase: Phase, *, count: int, draw: random.Random) -> Iterator[Trial]:
    """At every call of every kind, as far as ``count`` goes, and at random moments."""
    reference = torture.reference(phase)
    harms: list[Harm | float] = [
        Harm(kind=kind, number=number, side=side)
        for kind in HARMED
        for number in range(1, reference.counts.get(kind, 0) + 1)
        for side in ("before", "after")
    ]
    chosen = draw.sample(harms, min(len(harms), count - count // 4))
    chosen += [draw.uniform(0.0, reference.seconds) for _ in range(count - len(chosen))]
    for harm in chosen:
        yield torture.kill(phase, harm)


def in_words(harm: Harm | float) -> str:
    """Where a harm is done."""
    return f"after {harm:.2f} s" if isinstance(harm, float) else f"{harm.side} {harm.kind} {harm.number}"
