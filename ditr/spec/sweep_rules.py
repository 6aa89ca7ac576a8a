"""What holds between the specs of a sweep: each is an experiment of its own, with a name of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ditr.spec.identity import spec_hash
from ditr.spec.models import Spec
from ditr.spec.problems import Origin, Problem
from ditr.spec.registry import Registry
from ditr.spec.sweep_points import Point

MOST_LETTERS = 100
"""Of a name, which is part of a folder's."""


def unlike(members: Sequence[tuple[Point, Spec]], *, place: Origin, registry: Registry) -> Iterator[Problem]:
    """What is wrong between the specs of a sweep, which stand beside their points.

    Parameters
    ----------
    place: where the matrix stands, for points without a value of their own.
    """
    by_hash: dict[str, tuple[Point, Spec]] = {}
    by_name: dict[str, Point] = {}
    for point, spec in members:
        first, same = by_hash.setdefault(spec_hash(spec, registry=registry), (point, spec))
        named = by_name.setdefault(spec.name, point)
        if first is not point:
            what = f"is the same experiment as {same.name}: what they differ in changes no number"
            if spec.name == same.name:
                what = "is in the sweep twice"
            what = f"{spec.name} {what}; leave one out"
            yield _at_difference(point, first, place, what)
        elif named is not point:
            what = f"two specs would be called {spec.name}; give them names in zip or include"
            yield _at_difference(point, named, place, what)
        elif point.ending and len(spec.name) > MOST_LETTERS:
            what = f"{spec.name} has {len(spec.name)} letters, at most {MOST_LETTERS}; give it a name in zip or include"
            yield Problem(place, "matrix", what)


def _at_difference(point: Point, other: Point, place: Origin, what: str) -> Problem:
    """At the first value of ``point`` that ``other`` does not have from the same place."""
    for path, value in point.values.items():
        if path not in other.values or other.values[path].origin != value.origin:
            return Problem(value.origin, path, what)
    return Problem(place, "matrix", what)
