"""Which frames of a data set are meant: a split, or frames and scenes by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ditr.errors import Code, DitrError
from ditr.progress import Progress
from ditr.runner.inputs import Selection
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.data.dataset import Dataset, Split


def select(dataset: str, names: Sequence[str], *, split: Split, registry: Registry, progress: Progress) -> Selection:
    """The frames with these ids, and all frames of the scenes among the names; without any, those of ``split``.

    Parameters
    ----------
    dataset: of the registry; it is made if it is an embedded one.
    names: of frames and scenes of one split, whichever it is.

    Raises
    ------
    DitrError: there is no such frame, or the names are of both splits.
    """
    from ditr.data.dataset import open_dataset
    from ditr.rooms import make_missing

    make_missing(dataset, registry=registry, progress=progress)
    if not names:
        return Selection(split=split)
    opened = open_dataset(dataset, registry=registry)
    found = [_named(name, opened) for name in names]
    splits = {split for split, _ in found}
    if len(splits) > 1:
        what = f"these frames are of both splits of data set {dataset}"
        raise DitrError(what, code=Code.DATASET, where=" ".join(names), fix="Ask for those of one split at a time.")
    return Selection(split=splits.pop(), frames=tuple(dict.fromkeys(frame for _, frames in found for frame in frames)))


def _named(name: str, dataset: Dataset) -> tuple[Split, tuple[str, ...]]:
    """A split, and the frames of it that ``name`` means."""
    for split, frames in dataset.splits.items():
        if of_scene := tuple(info.id for info in frames.infos.frames if info.scene == name):
            return split, of_scene
    found, _ = dataset.find(name)
    return next(split for split, frames in dataset.splits.items() if frames is found), (name,)
