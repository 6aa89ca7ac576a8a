"""``schema`` of a spec file: the number of its layout, the first where there is none."""

from __future__ import annotations

from dataclasses import replace

from ditr import layouts
from ditr.spec.problems import Problem
from ditr.spec.yaml_text import Value

SCHEMA = "schema"


def take_schema(file: Value) -> tuple[Value, Problem | None]:
    """What a file says without its number, and what is wrong with that: whatever else it says may mean something else
    in another layout."""
    assert isinstance(file.data, dict), "the top of a file is a map"
    rest = {key: value for key, value in file.data.items() if key != SCHEMA}
    written = file.data.get(SCHEMA)
    wrong = None if written is None else _wrong(written.data)
    problem = None if written is None or wrong is None else Problem(written.origin, SCHEMA, wrong)
    return replace(file, data=rest), problem


def _wrong(number: object) -> str | None:
    if type(number) is not int or number < 1:
        return "must be a whole number, 1 or more; leave it out, or write 1"
    return f"{layouts.newer(number, newest=layouts.SPEC)}; upgrade ditr" if number > layouts.SPEC else None
