"""What the names of weights tell: which part of a model they are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

PLAIN_PARTS = ("backbone", "pool", "decoder")
"""Parts of the 3D-only model."""
ADDED_PARTS = ("injection", "bifusion", "stem")
"""Parts that fusions add: a file holds each of them whole or not at all."""
GROUPS = (*PLAIN_PARTS, *ADDED_PARTS, "other")

_STEM = "backbone.conv0p1s1."


def group_of(name: str) -> str:
    """The part of the model that a weight is of, ``other`` if it is of none."""
    part = name.partition(".")[0]
    return part if part in GROUPS else "other"


def by_group(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The names of each group that has any, in the order of ``GROUPS``."""
    names = tuple(names)
    grouped = {group: tuple(name for name in names if group_of(name) == group) for group in GROUPS}
    return {group: members for group, members in grouped.items() if members}


def prefix_in(names: Sequence[str]) -> str | None:
    """What stands before the backbone's names, None if no name is of a backbone."""
    for mark in (_STEM, "backbone."):
        found = [name[: name.index(mark)] for name in names if name.startswith(mark) or f".{mark}" in name]
        if found:
            return Counter(found).most_common(1)[0][0]
    return None
