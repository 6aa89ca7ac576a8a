"""Bounds of what a pickle stands for: a few hundred bytes of references to references may stand for 2**60 values."""

from __future__ import annotations

from collections.abc import Collection, Iterable

MOST_LEVELS = 64
"""Of containers in each other."""
MOST_TIMES_ITS_BYTES = 16
"""Values that a pickle may stand for, a byte of it: without references it is one, and infos share a matrix a scene."""
_PLAIN = frozenset({str, int, float, bool, type(None), bytes, complex})


class ExcessError(ValueError):
    """Says what goes beyond the bounds."""


def require_bounded(content: object, *, raw_bytes: int) -> None:
    """Raises ``ExcessError`` for content of a pickle of so many bytes that is too deep, endless, or too much when each
    reference is followed, as all do that go through it."""
    number, limit = _count(content, {}, 0), MOST_TIMES_ITS_BYTES * raw_bytes
    if number > limit:
        raise ExcessError(f"it stands for {number:,} values, by references to references")


def require_plain_keys(keys: Iterable[object]) -> None:
    """Raises ``ExcessError`` for what is not a text, a number, or a tuple of such: hashing a tuple of tuples follows
    every reference in it."""
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(type(part) in _PLAIN for part in parts):
            raise ExcessError(f"it has a {type(key).__name__} of containers as a key or in a set")


def _count(value: object, counts: dict[int, int], level: int) -> int:
    """Values below, this one included; ``counts`` knows those of containers by their ids, 0 while it is counted."""
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return 1
    known = counts.get(id(value))
    if known == 0:
        raise ExcessError("it holds itself")
    if known is not None:
        return known
    if level == MOST_LEVELS:
        raise ExcessError(f"it is nested more than {MOST_LEVELS} levels deep")
    counts[id(value)] = 0
    parts: Collection[object] = value.values() if isinstance(value, dict) else value
    number = 1 + sum(1 if type(part) in _PLAIN else _count(part, counts, level + 1) for part in parts)
    counts[id(value)] = number
    return number
