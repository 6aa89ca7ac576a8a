"""A measure and its limit, the values that were measured, and the check that comes of the two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ditr.errors import DitrError
from ditr.spec.check_limits import ChecksSpec

Rule = Literal["at most", "at least", "equal", "within", "positive", "so", "reported"]
Worst = Literal["largest", "smallest", "farthest", "any", "sum"]
"""Which of a measure's values decides, NaN before all: that farthest from 0.5, any that is not so, or their sum."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a measure gave, and whether it keeps its limit."""

    stage: int
    """A key of ``STAGES``."""
    name: str
    """Of the measure, such as ``uv_error_px``, with the level or place where there is one: ``s8_empty_voxels``."""
    value: float | None
    """What was measured; None where the answer is only yes or no."""
    limit: str
    """What it was held against, such as ``<= 0.05`` or ``reported``."""
    passed: bool
    detail: str = ""
    """Which frame, or what to do."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A row of the table of measures."""

    name: str
    rule: Rule
    limit: str | float | None
    """A field of ``ChecksSpec``, or the number itself; the words of ``so``; None where it comes with the values."""
    worst: Worst
    fix: str = ""
    """Said where it fails."""
    optional: bool = False
    """Left out where nothing was measured; else that is a failure."""


def most(name: str, limit: str | float | None, *, fix: str = "", optional: bool = False) -> Measure:
    """The largest value passes up to the limit."""
    return Measure(name=name, rule="at most", limit=limit, worst="largest", fix=fix, optional=optional)


def least(name: str, limit: str, *, fix: str = "", optional: bool = False) -> Measure:
    """The smallest value passes from the limit on."""
    return Measure(name=name, rule="at least", limit=limit, worst="smallest", fix=fix, optional=optional)


def none_of(name: str, *, fix: str = "", optional: bool = False) -> Measure:
    """A count of what is wrong: passes if nothing is."""
    return Measure(name=name, rule="at most", limit=0, worst="sum", fix=fix, optional=optional)


def equal(name: str, expected: float | None = 0, *, worst: Worst = "largest", optional: bool = False) -> Measure:
    """Passes with this number only."""
    return Measure(name=name, rule="equal", limit=expected, worst=worst, optional=optional)


def within(name: str, limits: str, *, worst: Worst = "largest", fix: str = "") -> Measure:
    """Passes between the two limits."""
    return Measure(name=name, rule="within", limit=limits, worst=worst, fix=fix)


def positive(name: str) -> Measure:
    """Passes if finite and above 0."""
    return Measure(name=name, rule="positive", limit=None, worst="smallest")


def so(name: str, what: str | None, *, fix: str = "", optional: bool = False) -> Measure:
    """No number, only whether ``what`` is so of every frame."""
    return Measure(name=name, rule="so", limit=what, worst="any", fix=fix, optional=optional)


def reported(name: str) -> Measure:
    """A number that is held against nothing."""
    return Measure(name=name, rule="reported", limit=None, worst="largest")


@dataclass(frozen=True, kw_only=True)
class _Value:
    number: float
    of: str
    note: str


class Measured:
    """What was measured of one table, or part of one; of each measure any number of values."""

    def __init__(self, table: tuple[Measure, ...], *, at: str = "", **limits: Any) -> None:
        """``at`` is what the names of the checks begin with; ``limits`` are those that the table leaves open."""
        self._table, self._at, self.limits = table, at, limits
        self._values: dict[str, list[_Value]] = {measure.name: [] for measure in table}
        self._failures: dict[str, str] = {}

    def take(self, name: str, number: float, of: str = "", *, note: str = "") -> None:
        """A value of a measure; ``of`` names the frame or whatever it is of, ``note`` says more of it."""
        self._values[name].append(_Value(number=float(number), of=of, note=note))

    def fail(self, name: str, why: str | DitrError) -> None:
        """The measure fails whatever its values, as where it cannot be taken."""
        assert name in self._values, f"{name} is in the table"
        self._failures[name] = in_a_line(why) if isinstance(why, DitrError) else why

    def checks(self, *, stage: int, limits: ChecksSpec) -> Iterator[Check]:
        """One of each measure, in the order of the table."""
        for measure in self._table:
            if measure.name in self._failures or self._values[measure.name] or not measure.optional:
                yield self._check(measure, stage=stage, limits=limits)

    def _check(self, measure: Measure, *, stage: int, limits: ChecksSpec) -> Check:
        values, failure = self._values[measure.name], self._failures.get(measure.name)
        limit: Any = self.limits.get(measure.name, measure.limit)
        if isinstance(limit, str) and measure.rule != "so":
            limit = getattr(limits, limit)
        rule: Rule = "reported" if limit is None and measure.rule == "at most" else measure.rule
        text, holds = _RULES[rule]
        number, detail = _worst(values, measure.worst)
        passed = failure is None and holds(number, limit)
        if failure is not None:
            detail = failure
        elif not passed:
            fix = "not measured, other checks tell why" if math.isnan(number) else measure.fix
            detail = "; ".join(part for part in (detail, fix) if part)
        return Check(
            stage=stage,
            name=f"{self._at}_{measure.name}" if self._at else measure.name,
            value=None if measure.rule == "so" or (failure is not None and not values) else number,
            limit=text(limit),
            passed=passed,
            detail=detail,
        )


def in_a_line(error: DitrError) -> str:
    """Where, what and the fix."""
    return f"{error.where}: {error.what}; {error.fix}"


_RULES: dict[Rule, tuple[Callable[[Any], str], Callable[[float, Any], bool]]] = {
    "at most": (lambda limit: f"<= {limit:g}", lambda value, limit: value <= limit),
    "at least": (lambda limit: f">= {limit:g}", lambda value, limit: value >= limit),
    "equal": (lambda limit: f"= {limit:.12g}", lambda value, limit: value == limit),
    "within": (lambda limits: "{:g} to {:g}".format(*limits), lambda value, limits: limits[0] <= value <= limits[1]),
    "positive": (lambda limit: "> 0", lambda value, limit: 0 < value < math.inf),
    "so": (str, lambda value, limit: value == 1),
    "reported": (lambda limit: "reported", lambda value, limit: True),
}
"""How a limit is written, and whether a value keeps it; no limit is kept by NaN."""

_WORST: dict[Worst, tuple[Callable[[float], float], str]] = {
    "largest": (lambda number: number, "most in "),
    "smallest": (lambda number: -number, "least in "),
    "farthest": (lambda number: abs(number - 0.5), "farthest from 0.5 in "),
    "any": (lambda number: number != 1, ""),
    "sum": (lambda number: number != 0, ""),
}
"""How bad a value is, and what is said before what it is of."""


def _worst(values: list[_Value], how: Worst) -> tuple[float, str]:
    """The number that decides, and what it is of; NaN where there is none."""
    if not values:
        return (0.0, "") if how == "sum" else (math.nan, "no frame at all")
    badness, before = _WORST[how]
    worst = max(values, key=lambda one: (math.isnan(one.number), badness(one.number)))
    number, more = worst.number, ""
    if how == "sum":
        number, others = sum(one.number for one in values), sum(one.number != 0 for one in values) - 1
        more = f"; and {others} more" if others > 0 else ""
    of = "" if worst.of in worst.note or (badness(worst.number) == 0 and how != "smallest") else before + worst.of
    return number, ": ".join(part for part in (of, worst.note) if part) + more
