"""What a user is told when something they wrote, own or asked for is wrong: one clear message and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, StrEnum
from functools import partial


class Code(StrEnum):
    """The closed set of error codes; CONTRIBUTING.md explains when to add one."""

    SPEC = "spec"
    """A spec file is wrong; the message lists every mistake as file:line:col."""
    REGISTRY = "registry"
    """A registry entry is missing, malformed or does not match what it names."""
    DATASET = "dataset"
    """A data set is missing, incomplete or breaks its format."""
    FEATURES = "features"
    """A 2D feature map is missing, damaged or does not fit the spec."""
    CHECKPOINT = "checkpoint"
    """A weight file is missing, damaged or does not fit the model."""
    RUN = "run"
    """A run cannot start, continue or be read."""
    QUERY = "query"
    """A query of the results is wrong."""
    ENVIRONMENT = "environment"
    """Something the machine needs is missing."""


class ExitCode(IntEnum):
    """What a command ends with."""

    DONE = 0
    FAILED = 1
    """A check or a run failed."""
    MISTAKE = 2
    """The user has to change something."""
    INTERRUPTED = 130
    """The user stopped it."""


class Interrupted(Exception):
    """The user asked to stop, at a place where nothing is half done."""


class DitrError(Exception):
    """A user's mistake or a missing thing.

    Parameters
    ----------
    what: what is wrong, one sentence.
    code: which kind of thing is wrong.
    where: ``file:line:col``, a path, a frame id or a field; empty if it has no place.
    fix: what to do about it, an imperative sentence; empty only if there is nothing to do.
    """

    def __init__(self, what: str, *, code: Code, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.code = code
        self.where = where
        self.fix = fix

    def __reduce__(self) -> tuple[Callable[..., DitrError], tuple[str]]:
        """So that one process can raise it in another."""
        return partial(DitrError, code=self.code, where=self.where, fix=self.fix), (self.what,)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"error[{self.code}]: {head}" + (f"\n  fix: {self.fix}" if self.fix else "")


_LONGEST = 200


def shortened(text: str) -> str:
    """What a user gave, as far as a message repeats it."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"


def in_short(error: Exception) -> str:
    """What an error says, without where and without a fix."""
    text = error.what if isinstance(error, DitrError) else str(error)
    return text.splitlines()[0] if text else type(error).__name__
