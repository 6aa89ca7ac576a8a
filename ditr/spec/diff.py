"""What two specs differ in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ditr.spec.models import Spec

ABSENT = "absent"
"""Stands for a key that only the other spec's part has."""


@dataclass(frozen=True)
class Difference:
    """One dotted path and its value in both specs."""

    path: str
    first: object
    second: object


def diff(first: Spec, second: Spec) -> tuple[Difference, ...]:
    """Every value that differs, defaults included, in the order of the fields; nothing that is equal."""
    return tuple(_differences(first.model_dump(mode="json"), second.model_dump(mode="json"), ""))


def _differences(first: dict[str, object], second: dict[str, object], above: str) -> Iterator[Difference]:
    for key in {**first, **second}:
        one, other = first.get(key, ABSENT), second.get(key, ABSENT)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{above}{key}.")
        elif one != other:
            yield Difference(f"{above}{key}", one, other)
