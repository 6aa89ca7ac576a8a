"""The points of a matrix, each a spec of the sweep, and what they are called."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from ditr.spec.compose import merge
from ditr.spec.matrix import NAME, Matrix, as_list
from ditr.spec.overrides import at_path
from ditr.spec.problems import Origin
from ditr.spec.yaml_text import Value

Row = Mapping[str, Value]
"""Values by their dotted paths."""


@dataclass(frozen=True)
class Point:
    """What one spec of a sweep adds to the file; nothing, if the file is no sweep."""

    values: Row
    ending: str
    """What its name has after the file's."""

    @property
    def tree(self) -> Value:
        """The values inside of maps."""
        trees = [at_path(path, value, key=value.key or value.origin) for path, value in self.values.items()]
        return reduce(merge, trees, Value({}, Origin("", 0, 0)))

    @property
    def overrides(self) -> tuple[str, ...]:
        """Each value as ``--set`` takes it, ``path=value``."""
        return tuple(f"{path}={_in_yaml(value)}" for path, value in self.values.items())


def points(matrix: Matrix) -> tuple[Point, ...]:
    """Each row of ``zip`` with each combination of ``product``, the last path fastest; then those of ``include``."""
    paths = {path for row in (matrix.zip, matrix.product, *matrix.include) for path in row if path != NAME}
    labels = {path: _label(path, paths) for path in paths}
    return tuple(_point(rows, labels) for rows in _rows(matrix))


def _rows(matrix: Matrix) -> Iterator[Sequence[Row]]:
    axes = [[{path: value} for value in _column(values)] for path, values in matrix.product.items()]
    if matrix.zip:
        columns = map(_column, matrix.zip.values())
        axes.insert(0, [dict(zip(matrix.zip, row, strict=True)) for row in zip(*columns, strict=True)])
    if axes:
        yield from itertools.product(*axes)
    yield from ((point,) for point in matrix.include)


def _column(values: Value) -> list[Value]:
    """The values of a path's list, each with the path for its key."""
    return [replace(value, key=values.key) for value in as_list(values)]


def _point(rows: Sequence[Row], labels: Mapping[str, str]) -> Point:
    values = {path: value for row in rows for path, value in row.items() if path != NAME}
    words = [str(row[NAME].data) if NAME in row else _words(row, labels) for row in rows]
    return Point(values, "_" + "_".join(words))


def _label(path: str, paths: set[str]) -> str:
    """The shortest ending that no other path has: ``scales`` for ``fusion.injection.scales``."""
    keys = path.split(".")
    endings = [".".join(keys[-length:]) for length in range(1, len(keys) + 1)]
    alone = (end for end in endings if sum(f".{other}".endswith(f".{end}") for other in paths) == 1)
    return next(alone, path).replace(".", "_").lower()


def _words(row: Row, labels: Mapping[str, str]) -> str:
    return "_".join(f"{labels[path]}_{_word(value)}" for path, value in row.items())


def _word(value: Value) -> str:
    """A value as a part of a name, the same however it was typed: 1e-4 is 0p0001, [8, 4] is 8_4."""
    data = value.data
    if isinstance(data, dict):
        return "_".join(f"{key}_{_word(child)}".lower() for key, child in data.items()) or "default"
    if isinstance(data, tuple):
        return "_".join(map(_word, data)) or "empty"
    if data is None:
        return "null"
    if isinstance(data, int | float) and not isinstance(data, bool):
        return repr(data).replace(".", "p").replace("-", "m").replace("+", "")
    return re.sub(r"[^a-z0-9]+", "_", str(data).lower()).strip("_") or "empty"


def _in_yaml(value: Value) -> str:
    """The value as YAML in one line, which reads as the same value."""
    data = value.data
    if isinstance(data, dict):
        return "{" + ", ".join(f"{key}: {_in_yaml(child)}" for key, child in data.items()) + "}"
    if isinstance(data, tuple):
        return "[" + ", ".join(map(_in_yaml, data)) + "]"
    if isinstance(data, str):
        return data if not value.quoted and re.fullmatch(r"\w[\w./-]*", data) else json.dumps(data, ensure_ascii=False)
    return value.text or "null"
