"""What the class ids of a data set mean: ScanNet200's, or a table of its own (docs/data_format.md, Classes)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ditr.data.classes import CLASS_NAMES, IGNORED, MAX_RAW_ID, NUM_STUFF, raw_id_on_disk
from ditr.errors import Code, DitrError


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """Classes as a data set stores them; 0 is never one, for it says that nobody annotated a point."""

    names: Mapping[int, str]
    """By id as it is stored, in the order of the classes."""
    stuff: Collection[str]
    """Names of what has no instances to find, such as walls."""
    highest_id: int
    """The highest id that a file may hold; one that has no name, nobody looks for."""

    @cached_property
    def things(self) -> tuple[str, ...]:
        """(T,) names of the others."""
        return tuple(name for name in self.names.values() if name not in self.stuff)

    @cached_property
    def thing_of_id(self) -> np.ndarray:
        """(highest_id + 1,) int64 index into ``things``, -1 for stuff and whatever has no name."""
        index = {name: number for number, name in enumerate(self.things)}
        return self._by_id({id_: index[name] for id_, name in self.names.items() if name in index}, none=-1)

    @cached_property
    def class_of_id(self) -> np.ndarray:
        """(highest_id + 1,) int64 index into ScanNet200's classes, ``IGNORED`` where the name is none of these."""
        index = {name: number for number, name in enumerate(CLASS_NAMES)}
        return self._by_id({id_: index[name] for id_, name in self.names.items() if name in index}, none=IGNORED)

    def name(self, id_: int) -> str:
        """The name of a stored id; the id itself where it has none."""
        return self.names.get(id_, f"id {id_}")

    def _by_id(self, values: Mapping[int, int], *, none: int) -> np.ndarray:
        table = np.full(self.highest_id + 1, none, dtype=np.int64)
        table[list(values)] = list(values.values())
        table.setflags(write=False)
        return table


SCANNET200 = ClassTable(
    names={raw_id_on_disk(name): name for name in CLASS_NAMES}, stuff=CLASS_NAMES[:NUM_STUFF], highest_id=MAX_RAW_ID
)


def own_classes(names: Mapping[int, str], *, stuff: Collection[str]) -> ClassTable:
    """The table of a data set that names its classes itself.

    Raises
    ------
    DitrError: stuff that is none of the names.
    """
    if unknown := sorted(set(stuff) - set(names.values())):
        fix = f"Name what stands in classes: {', '.join(sorted(set(names.values())))}."
        raise DitrError(f"stuff {unknown[0]!r} is no name of a class", code=Code.REGISTRY, where="stuff", fix=fix)
    return ClassTable(names=dict(sorted(names.items())), stuff=tuple(stuff), highest_id=max(names))
