from __future__ import annotations

import math

import pytest

from ditr.checks import tables
from ditr.checks.measure import AT_LEAST, AT_MOST, EQUAL, NONE_WRONG, POSITIVE, SO, WITHIN, Check, Measure, Measurements
from ditr.errors import Code, DitrError
from ditr.spec.check_limits import ChecksSpec

LIMITS = ChecksSpec()


def check(measure: Measure, *values: float, **limits: object) -> Check:
    """Of values of the frames a, b, c."""
    found = Measurements((measure,), **limits)
    for frame, value in zip("abc", values, strict=False):
        found.take(measure.name, value, frame)
    (one,) = found.checks(stage=2, limits=LIMITS)
    return one


@pytest.mark.parametrize(
    "measure",
    [
        Measure("m", AT_MOST, 1.0),
        Measure("m", AT_LEAST, "min_map_effect"),
        Measure("m", WITHIN, "gate_range"),
        Measure("m", EQUAL, math.nan),
        Measure("m", POSITIVE),
        Measure("m", SO, "so"),
        Measure("m", NONE_WRONG),
    ],
)
def test_what_could_not_be_measured_never_passes(measure: Measure) -> None:
    assert not check(measure, 0.5, math.nan, 0.7).passed
    if not measure.rule.total:
        assert not check(measure).passed
        assert "other checks tell why" in check(measure).detail


def test_limits_are_part_of_what_passes() -> None:
    assert check(Measure("m", AT_MOST, "max_uv_error_px"), 0.05).passed
    assert check(Measure("m", AT_LEAST, "min_valid_ratio"), 0.95).passed
    assert check(Measure("m", WITHIN, "gate_range"), 0.02, 0.98).passed
    assert not check(Measure("m", AT_MOST, "max_uv_error_px"), 0.01, 0.0500001).passed
    assert not check(Measure("m", WITHIN, "gate_range"), 0.5, 0.99).passed
    assert not check(Measure("m", POSITIVE), 0.0).passed
    assert not check(Measure("m", POSITIVE), math.inf).passed


def test_the_worst_value_decides_and_its_frame_is_named() -> None:
    assert check(Measure("m", AT_MOST, 1), 0.2, 0.9, 0.1).detail == "most in b"
    assert check(Measure("m", AT_LEAST, "min_valid_ratio"), 0.99, 1, 0.98).detail == "least in c"
    assert check(Measure("m", WITHIN, "gate_range"), 0.5, 0.3, 0.6).detail == "farthest from the middle in b"
    answer = check(Measure("m", SO, "as it should"), True, False, True)
    assert (answer.value, answer.limit, answer.passed, answer.detail) == (None, "as it should", False, "b")
    assert check(Measure("m", AT_MOST, 1), 0.5, math.nan, 9.0).detail.startswith("most in b")
    assert check(Measure("m", AT_LEAST, "min_valid_ratio"), 0.5, math.nan, 9.0).detail.startswith("least in b")


def test_what_is_wrong_is_counted_and_the_first_is_named() -> None:
    found = check(Measure("m", NONE_WRONG, fix="make it right"), 0, 1, 1)
    assert (found.value, found.limit, found.passed) == (2, "<= 0", False)
    assert found.detail == "b; and 1 more; make it right"
    assert check(Measure("m", NONE_WRONG)).passed


def test_the_fix_is_said_where_it_is_needed_only() -> None:
    assert check(Measure("m", AT_MOST, 0, fix="extract again"), 1).detail == "most in a; extract again"
    assert check(Measure("m", AT_MOST, 1, fix="extract again"), 1).detail == "most in a"


def test_a_limit_may_come_with_the_values_and_may_be_missing() -> None:
    assert check(Measure("m", EQUAL, None), 128, m=128).limit == "= 128"
    assert not check(Measure("m", EQUAL, None), 128, m=64).passed
    assert check(Measure("m", AT_MOST, "max_forward_s"), 1e9).limit == "reported"


def test_an_error_becomes_a_check_that_says_where_and_what_to_do() -> None:
    found = Measurements((Measure("m", AT_MOST, 1),), at="s8")
    found.fail("m", DitrError("it is damaged", code=Code.FEATURES, where="frame 3", fix="extract again"))
    (one,) = found.checks(stage=1, limits=LIMITS)
    assert (one.stage, one.name, one.value, one.limit, one.passed) == (1, "s8_m", None, "<= 1", False)
    assert one.detail == "frame 3: it is damaged; extract again"


def test_the_tables_and_the_limits_of_a_spec_name_each_other() -> None:
    rows = [row for table in vars(tables).values() if isinstance(table, tuple) for row in table]
    named = {row.limit for row in rows if isinstance(row.limit, str) and row.rule is not SO}
    assert named == ChecksSpec.model_fields.keys() - {"steps"}
