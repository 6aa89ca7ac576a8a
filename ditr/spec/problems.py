"""What is wrong where: positions, problems and the error that carries all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ditr.errors import Code, DitrError, shortened

PathSteps = tuple[str | int, ...]
"""Where in a document: keys and list indices from the top."""


@dataclass(frozen=True, order=True)
class Origin:
    """Where a value was written: a file with line and column from 1, or an override (``--set path=value``, line 0)."""

    file: str
    line: int
    col: int

    def __str__(self) -> str:
        return f"{shown_path(self.file)}:{self.line}:{self.col}" if self.line else shortened(self.file)

    def in_short(self) -> str:
        """Without the column."""
        return f"{shown_path(self.file)}:{self.line}" if self.line else shortened(self.file)


class ProblemKind(StrEnum):
    """What sort of mistake it is, where something depends on that."""

    WRONG = "wrong"
    MISSING = "missing"
    """Nothing is written where a value is needed; another file may have it."""


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake; ``path`` is dotted and empty where the whole file is meant."""

    origin: Origin
    path: str
    what: str
    kind: ProblemKind = ProblemKind.WRONG

    def __str__(self) -> str:
        return f"{self.origin}: {shortened(self.path)}: {self.what}" if self.path else f"{self.origin}: {self.what}"


@dataclass(frozen=True)
class Finding:
    """What is wrong at ``path``, and the other values that it does not agree with."""

    path: PathSteps
    what: str
    others: tuple[PathSteps, ...] = ()


class SpecErrors(DitrError):
    """Every mistake that was found, sorted by file and position, each once."""

    def __init__(self, problems: Iterable[Problem], *, code: Code = Code.SPEC) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))
        assert self.problems, "SpecErrors without a problem"
        super().__init__(str(self.problems[0]), code=code)

    def __str__(self) -> str:
        number = len(self.problems)
        count = f"error[{self.code}]: {number} mistake{'s' if number > 1 else ''}"
        return "\n".join([*map(str, self.problems), count])


def dotted(steps: Sequence[str | int]) -> str:
    """``("fusion", "injection", "scales", 0)`` -> ``fusion.injection.scales[0]``."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def shown_path(file: str | Path) -> str:
    """Relative to the working directory if below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def allowed(word: str, options: Sequence[str], *, label: str = "allowed") -> str:
    """``; did you mean 'x'? allowed: x, y``, the question only where one is near."""
    guess = did_you_mean(word, options)
    return f"{guess}{'' if guess else ';'} {label}: {', '.join(options) or 'none'}"


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    by_lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


def repeated(items: tuple[Any, ...], path: PathSteps) -> Iterator[Finding]:
    """Every item that is in the list before."""
    for index, item in enumerate(items):
        if item in items[:index]:
            yield Finding((*path, index), f"{item} is in the list twice")


def in_yaml(value: object) -> str:
    """A value as it is written in a spec."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
