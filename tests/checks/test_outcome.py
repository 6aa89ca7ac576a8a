from __future__ import annotations

import math

import pytest

from ditr.checks.outcome import Check, at_least, at_most, equal, failed, largest, smallest, within, yes_or_no
from ditr.errors import Code, DitrError


@pytest.mark.parametrize(
    "check",
    [
        at_most(1, "a", math.nan, limit=1.0),
        at_least(1, "a", math.nan, limit=-1.0),
        within(1, "a", math.nan, limits=(0.0, 1.0)),
        equal(1, "a", math.nan, expected=math.nan),
    ],
)
def test_what_could_not_be_measured_never_passes(check: Check) -> None:
    assert not check.passed


def test_limits_are_part_of_what_passes() -> None:
    assert at_most(1, "a", 0.05, limit=0.05).passed
    assert at_least(1, "a", 0.95, limit=0.95).passed
    assert within(1, "a", 0.02, limits=(0.02, 0.98)).passed
    assert not at_most(1, "a", 0.0500001, limit=0.05).passed
    assert not within(1, "a", 0.99, limits=(0.02, 0.98)).passed


def test_the_fix_is_told_where_it_is_needed_only() -> None:
    assert at_most(1, "a", 1, limit=0, detail="frame 3", fix="extract again").detail == "frame 3; extract again"
    assert at_most(1, "a", 0, limit=0, detail="frame 3", fix="extract again").detail == "frame 3"
    assert yes_or_no(1, "a", False, limit="so", fix="extract again").detail == "extract again"


def test_a_frame_without_a_number_is_the_worst_whichever_end_counts() -> None:
    values = {"a": 0.5, "b": math.nan, "c": 9.0}
    assert largest(values)[1] == smallest(values)[1] == "b"
    assert largest({"a": 0.5, "c": 9.0}) == (9.0, "c")
    assert smallest({"a": 0.5, "c": 9.0}) == (0.5, "a")
    assert math.isnan(largest({})[0])
    assert math.isnan(smallest({})[0])


def test_an_error_becomes_a_check_that_says_where_and_what_to_do() -> None:
    error = DitrError("it is damaged", code=Code.FEATURES, where="frame 3", fix="extract again")
    check = failed(1, "a", error, limit="<= 1")
    assert not check.passed
    assert check.detail == "frame 3: it is damaged; extract again"
