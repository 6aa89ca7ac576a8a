"""What a torch file's tuples stand for: a key is hashed by following every reference in it, and a few hundred bytes of
references to references stand for 2**60 values. Only tuples: lists and dicts are no keys."""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import IO
from zipfile import ZipFile

MOST = 1_000_000
"""Values of a tuple, with those in it; torch's own have a dozen."""
_PICKLES = 5
"""Before 1.6 a file begins with so many: magic number, protocol, machine, content, names of storages."""
_MARK = -1


class BloatedTupleError(ValueError):
    """A tuple stands for more than any weight file needs."""


def require_small_tuples(archive: Path | IO[bytes]) -> None:
    """Raises ``BloatedTupleError`` for what the pickle of a torch archive puts together; nothing of it is made."""
    with ZipFile(archive) as members:
        for name in members.namelist():
            if name.endswith("data.pkl"):
                with members.open(name) as pickled:
                    _require_small(pickled)


def require_small_tuples_before_zip(path: Path) -> None:
    """As ``require_small_tuples``, of a file of before torch 1.6."""
    with path.open("rb") as file:
        for _ in range(_PICKLES):
            _require_small(file)


def _require_small(pickled: IO[bytes]) -> None:
    """Follows one pickle with, in place of its values, how many values each tuple stands for; all others count one."""
    stack: list[int] = []
    kept: dict[int, int] = {}
    for step, argument, _ in pickletools.genops(pickled):
        name = step.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            kept[int(argument or 0)] = stack[-1]
        elif name == "MEMOIZE":
            kept[len(kept)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(kept[int(argument or 0)])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            taken = _take(stack, [one.name for one in step.stack_before])
            made = 1 + sum(taken) if name.startswith("TUPLE") else 1
            if made > MOST:
                raise BloatedTupleError(f"a tuple in its bookkeeping stands for {made:,} values")
            stack += [made] * len(step.stack_after)


def _take(stack: list[int], before: list[str]) -> list[int]:
    """What a step takes from the stack: as many as it names, and all down to the mark where it names one."""
    taken = []
    if "mark" in before:
        while (value := stack.pop()) != _MARK:
            taken.append(value)
        before = before[: before.index("mark")]
    return taken + [stack.pop() for _ in before]
