"""What names and shapes of weights tell: which part of a model they are of, and in whose layout they lie."""

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


def first_parts(names: Iterable[str]) -> dict[str, int]:
    """How many names begin with each first part, the most first."""
    return dict(Counter(name.partition(".")[0] for name in names).most_common())


def prefix_in(names: Sequence[str]) -> str | None:
    """What stands before the backbone's names, None if no name is of a backbone."""
    for mark in (_STEM, "backbone."):
        found = [name[: name.index(mark)] for name in names if name.startswith(mark) or f".{mark}" in name]
        if found:
            return Counter(found).most_common(1)[0][0]
    return None


def foreign_layout(shape: Sequence[int], *, wanted: Sequence[int]) -> str | None:
    """Whose layout a kernel of this shape has, if ``wanted`` is MinkowskiEngine's (K, in, out), or (in, out) for K = 1.

    None where it is ``wanted`` itself or no layout of the same kernel. Equal channels can hide a transposition.
    """
    volume, ins, outs = wanted if len(wanted) == 3 else (1, *wanted)
    edge = round(volume ** (1 / 3))
    layouts = {
        (outs, edge, edge, edge, ins): "spconv 2's, (out, k, k, k, in)",
        (edge, edge, edge, ins, outs): "spconv 1's, (k, k, k, in, out)",
        (outs, ins, edge, edge, edge): "that of dense convolutions, (out, in, k, k, k)",
        (outs, volume, ins): "(out, kernel volume, in)",
        (volume, outs, ins): "transposed, (kernel volume, out, in)",
        (volume, ins, outs): "(kernel volume, in, out) with a kernel volume of 1",
        (outs, ins): "transposed, (out, in)",
    }
    return None if tuple(shape) == tuple(wanted) else layouts.get(tuple(shape))
