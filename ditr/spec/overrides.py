"""Values given by their dotted path: ``--set path=value``, and those of a sweep's matrix."""

from __future__ import annotations

import re
from dataclasses import replace

from ditr.spec.problems import Origin, Problem
from ditr.spec.yaml_text import MOST_LEVELS, Value, parse

NO_PATH = "not a path; write keys with dots between, such as schedule.epochs (a list is replaced whole)"
_OF_A_FILE = {
    "extends": "write a spec that extends the other file",
    "matrix": "write a sweep that extends this spec",
    "schema": "it is the file's",
}


def read_override(text: str) -> tuple[Value | None, list[Problem]]:
    """``path=value`` as a tree of maps around the value."""
    origin = Origin(f"--set {text}", 0, 0)
    path, equals, value_text = text.partition("=")
    path = path.strip()
    if not equals:
        return None, [Problem(origin, "", "must be path=value, such as schedule.epochs=2")]
    if not is_path(path):
        return None, [Problem(origin, path, NO_PATH)]
    if (key := path.partition(".")[0]) in _OF_A_FILE:
        return None, [Problem(origin, path, f"cannot be set; {_OF_A_FILE[key]}")]
    source = parse(value_text, file=origin.file, override=True) if value_text.strip() else None
    if source is None:
        return None, [Problem(origin, path, "no value; write null to switch a part off")]
    problems = [replace(problem, path=f"{path}.{problem.path}".rstrip(".")) for problem in source.problems]
    if source.value is None:
        return None, problems
    return at_path(path, source.value, key=origin), problems


def is_path(text: str) -> bool:
    """Whether it is keys with dots between, no more than there can be levels."""
    return re.fullmatch(r"\w+(\.\w+)*", text) is not None and text.count(".") < MOST_LEVELS


def at_path(path: str, value: Value, *, key: Origin) -> Value:
    """The value inside of a map for each key of its path; ``key`` is where the path was written."""
    value = replace(value, key=key)
    for step in reversed(path.split(".")):
        value = Value({step: value}, key, key)
    return value


def first_clash(first: Value, second: Value) -> str:
    """The dotted path that both set, empty if there is none."""
    if not isinstance(first.data, dict) or not isinstance(second.data, dict):
        return ""
    for key in second.data.keys() & first.data.keys():
        other, value = first.data[key], second.data[key]
        if not isinstance(other.data, dict) or not isinstance(value.data, dict):
            return key
        if below := first_clash(other, value):
            return f"{key}.{below}"
    return ""
