"""The ``matrix`` that makes a spec file a sweep, and what can be wrong with it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from ditr.spec.explain import check, shown
from ditr.spec.overrides import NO_PATH, is_path
from ditr.spec.part import Part
from ditr.spec.problems import PathSteps, Problem, dotted
from ditr.spec.yaml_text import Value

NAME = "name"
"""Among the paths of ``zip`` or of a point of ``include``: what a spec is called in place of its values."""
MOST_SPECS = 256
_NOT_SWEPT = {
    "extends": "cannot be swept; write a sweep for each file",
    "matrix": "cannot be swept",
    "schema": "cannot be swept",
    "seeds": "cannot be swept; write seeds: [0, 1, 2] beside the matrix, and every spec runs with each of them",
}
_Values = Annotated[tuple[Any, ...], Field(strict=False)]


class MatrixSpec(Part):
    """Makes this file a sweep: a spec for each row of zip with each combination of product, and for each of include.

    Paths are dotted, such as `schedule.learning_rate`; whatever else the file says holds for every spec.
    """

    product: dict[str, _Values] = Field(default_factory=dict)
    """A list of values for each path, of which every combination is taken."""
    zip: dict[str, _Values] = Field(default_factory=dict)
    """Lists of equal length; the values at the same place go together. `name: [...]` says what these are called."""
    include: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()
    """Single specs, each with the values of its paths. `name` says what it is called."""


@dataclass(frozen=True)
class Matrix:
    """A matrix as it was written; every value knows where its path stands."""

    product: Mapping[str, Value]
    """A list a path."""
    zip: Mapping[str, Value]
    include: tuple[Mapping[str, Value], ...]
    """A value a path."""


def read_matrix(written: Value) -> tuple[Matrix | None, list[Problem]]:
    """The matrix, or None and every mistake in it; what its values mean in a spec is not looked at."""
    _, problems = check(written, MatrixSpec)
    if problems:
        return None, [replace(problem, path=f"matrix.{problem.path}".rstrip(".")) for problem in problems]
    parts = as_map(written)
    matrix = Matrix(
        product=as_map(parts["product"]) if "product" in parts else {},
        zip=as_map(parts["zip"]) if "zip" in parts else {},
        include=tuple(map(as_map, as_list(parts["include"]))) if "include" in parts else (),
    )
    problems = [*_wrong_paths(matrix), *_wrong_names(matrix), *_wrong_lengths(matrix), *_overlaps(matrix)]
    if not problems and (what := _wrong_size(matrix)):
        problems = [Problem(written.key or written.origin, "matrix", what)]
    return (None if problems else matrix), problems


def as_map(value: Value) -> dict[str, Value]:
    """The children of what is known to be a map."""
    assert isinstance(value.data, dict)
    return value.data


def as_list(value: Value) -> tuple[Value, ...]:
    """The items of what is known to be a list."""
    assert isinstance(value.data, tuple)
    return value.data


def _groups(matrix: Matrix) -> Iterator[list[tuple[PathSteps, Value]]]:
    """The paths, with what stands there, of all that one spec can have values of at once."""
    parts = (("product", matrix.product), ("zip", matrix.zip))
    yield [(("matrix", part, path), values) for part, lists in parts for path, values in lists.items()]
    for at, point in enumerate(matrix.include):
        yield [(("matrix", "include", at, path), value) for path, value in point.items()]


def _wrong_paths(matrix: Matrix) -> Iterator[Problem]:
    for place, value in (each for group in _groups(matrix) for each in group):
        path = str(place[-1])
        what = _NOT_SWEPT.get(path.partition(".")[0], "" if is_path(path) else NO_PATH)
        if what:
            yield _at_key(value, place, what)


def _wrong_names(matrix: Matrix) -> Iterator[Problem]:
    if NAME in matrix.product:
        what = "names go with the lists of zip and the points of include; each value of product is part of the name"
        yield _at_key(matrix.product[NAME], ("matrix", "product", NAME), what)
    names: list[tuple[PathSteps, Value]] = []
    if NAME in matrix.zip:
        names += [(("matrix", "zip", NAME, at), name) for at, name in enumerate(as_list(matrix.zip[NAME]))]
    for at, point in enumerate(matrix.include):
        if NAME in point:
            names.append((("matrix", "include", at, NAME), point[NAME]))
    for place, name in names:
        if not isinstance(name.data, str) or not re.fullmatch(r"[a-z0-9_]+", name.data):
            what = f"must be lower-case letters, digits and underscores; is {shown(name)}"
            yield Problem(name.origin, dotted(place), what)


def _wrong_lengths(matrix: Matrix) -> Iterator[Problem]:
    for part, lists in (("product", matrix.product), ("zip", matrix.zip)):
        for path, values in lists.items():
            if not as_list(values):
                yield Problem(values.origin, dotted(("matrix", part, path)), "an empty list; it needs a value at least")
    lengths = {path: len(as_list(values)) for path, values in matrix.zip.items()}
    first = next(iter(lengths), "")
    for path, length in lengths.items():
        if length != lengths[first] and length and lengths[first]:
            what = f"has {length} values, and {first} has {lengths[first]}; the lists of zip must be of one length"
            yield Problem(matrix.zip[path].origin, dotted(("matrix", "zip", path)), what)


def _overlaps(matrix: Matrix) -> Iterator[Problem]:
    for group in _groups(matrix):
        values = [each for each in group if each[0][-1] != NAME]
        for (place_before, before), (place, value) in itertools.combinations(values, 2):
            first, second = str(place_before[-1]), str(place[-1])
            if f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}."):
                line = (before.key or before.origin).line
                yield _at_key(value, place, f"sets what {first} in line {line} sets; keep one of the two")


def _wrong_size(matrix: Matrix) -> str:
    rows = [len(as_list(values)) for values in list(matrix.zip.values())[:1]]
    lengths = [*rows, *(len(as_list(values)) for values in matrix.product.values())]
    number = (math.prod(lengths) if lengths else 0) + len(matrix.include)
    if number > MOST_SPECS:
        return f"makes {number:,} specs; a file can have {MOST_SPECS}"
    return "" if number else "makes no spec; needs product, zip or include"


def _at_key(value: Value, place: PathSteps, what: str) -> Problem:
    return Problem(value.key or value.origin, dotted(place), what)
