"""A measure and its limit, the values that were measured, and the check that comes of the two."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ditr.errors import DitrError
from ditr.spec.check_limits import ChecksSpec


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


@dataclass(frozen=True)
class Rule:
    """How a value is held against a limit, and which of several values decides: the worst, NaN before all."""

    text: Callable[[Any], str]
    """Of the limit."""
    keeps: Callable[[float, Any], bool]
    """Whether a value keeps the limit; NaN keeps none."""
    badness: Callable[[float, Any], float]
    before: str = ""
    """What is said before the frame that the worst value is of."""
    total: bool = False
    """The sum decides, of the bad ones the first is named."""


AT_MOST = Rule(lambda limit: f"<= {limit:g}", operator.le, lambda value, _: value, "most in ")
AT_LEAST = Rule(lambda limit: f">= {limit:g}", operator.ge, lambda value, _: -value, "least in ")
NONE_WRONG = replace(AT_MOST, badness=lambda value, _: value != 0, before="", total=True)
EQUAL = Rule(lambda limit: f"= {limit:.12g}", operator.eq, lambda value, limit: abs(value - limit), "most in ")
TOTAL = replace(EQUAL, badness=lambda value, _: value != 0, before="", total=True)
WITHIN = Rule(
    lambda limits: "{:g} to {:g}".format(*limits),
    lambda value, limits: limits[0] <= value <= limits[1],
    lambda value, limits: abs(value - sum(limits) / 2),
    "farthest from the middle in ",
)
POSITIVE = Rule(lambda _: "> 0", lambda value, _: 0 < value < math.inf, lambda value, _: -value, "least in ")
SO = Rule(str, lambda value, _: value == 1, lambda value, _: value != 1)
"""No number, only whether what the limit says is so of every frame."""
REPORTED = Rule(lambda _: "reported", lambda value, _: True, lambda value, _: value, "most in ")
"""A number that is held against nothing."""


@dataclass(frozen=True)
class Measure:
    """A row of the table of measures."""

    name: str
    rule: Rule
    limit: str | float | None = 0
    """A field of ``ChecksSpec``, or the number itself; the words of ``SO``; None where it comes with the values."""
    fix: str = ""
    """Said where it fails."""
    optional: bool = False
    """Left out where nothing was measured; else that is a failure."""


@dataclass(frozen=True, kw_only=True)
class _Value:
    number: float
    of: str
    note: str


class Measurements:
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
        if isinstance(limit, str) and measure.rule is not SO:
            limit = getattr(limits, limit)
        rule = REPORTED if limit is None and measure.rule is AT_MOST else measure.rule
        value, detail = _worst(values, rule, limit)
        passed = failure is None and rule.keeps(value, limit)
        if failure is None and not passed:
            fix = "not measured, other checks tell why" if math.isnan(value) else measure.fix
            detail = "; ".join(part for part in (detail, fix) if part)
        return Check(
            stage=stage,
            name=f"{self._at}_{measure.name}" if self._at else measure.name,
            value=None if rule is SO or (failure and not values) else value,
            limit=rule.text(limit),
            passed=passed,
            detail=failure or detail,
        )


def in_a_line(error: DitrError) -> str:
    """Where, what and the fix."""
    return f"{error.where}: {error.what}; {error.fix}"


def _worst(values: list[_Value], rule: Rule, limit: Any) -> tuple[float, str]:
    """The number that decides, and what it is of; NaN where there is none."""
    if not values:
        return (0.0, "") if rule.total else (math.nan, "no frame at all")
    worst = max(values, key=lambda one: (math.isnan(one.number), rule.badness(one.number, limit)))
    number, more = worst.number, ""
    if rule.total:
        number, bad = sum(one.number for one in values), sum(one.number != 0 for one in values)
        if rule.keeps(number, limit):
            return number, ""
        more = f"; and {bad - 1} more" if bad > 1 else ""
    named = worst.of not in worst.note and rule.badness(worst.number, limit) != 0
    return number, ": ".join(part for part in (rule.before + worst.of if named else "", worst.note) if part) + more
