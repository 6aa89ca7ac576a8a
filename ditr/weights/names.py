"""What the names of weights tell: which part of a model they are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

PLAIN_PARTS = ("backbone", "pool", "decoder")
"""Parts of the 3D-only model."""
ADDED_PARTS = ("injection", "bifusion", "stem")
"""Parts that built-in fusions add: a file holds each of them whole or not at all."""

_STEM = "backbone.conv0p1s1."


def first_word(name: str) -> str:
    """Of a weight in a model or file: the part that it is of."""
    return name.partition(".")[0]


def added_parts(model: Iterable[str]) -> tuple[str, ...]:
    """The built-in ones, and what else a model whose weights have these names has got from a fusion."""
    words = dict.fromkeys(first_word(name) for name in model)
    return (*ADDED_PARTS, *(word for word in words if word not in (*PLAIN_PARTS, *ADDED_PARTS)))


def group_of(name: str, *, added: Sequence[str] = ADDED_PARTS) -> str:
    """The part of the model that a weight is of, ``other`` if it is of none."""
    part = first_word(name)
    return part if part in (*PLAIN_PARTS, *added) else "other"


def by_group(names: Iterable[str], *, added: Sequence[str] = ADDED_PARTS) -> dict[str, tuple[str, ...]]:
    """The names of each group that has any: of the 3D-only model, of what is added, and others."""
    grouped: dict[str, list[str]] = {group: [] for group in (*PLAIN_PARTS, *added, "other")}
    for name in names:
        grouped[group_of(name, added=added)].append(name)
    return {group: tuple(members) for group, members in grouped.items() if members}


def prefix_in(names: Sequence[str]) -> str | None:
    """What stands before the backbone's names, None if no name is of a backbone."""
    for mark in (_STEM, "backbone."):
        found = [name[: name.index(mark)] for name in names if name.startswith(mark) or f".{mark}" in name]
        if found:
            return Counter(found).most_common(1)[0][0]
    return None
