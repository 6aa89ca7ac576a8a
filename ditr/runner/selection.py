"""Which frames of a data set are meant: a split, or frames and scenes by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ditr.errors import Code, DitrError
from ditr.progress import Progress
from ditr.runner.inputs import Selection
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.data.dataset import Dataset
    from ditr.data.scannet_sv import Split


def select(
    dataset: str, names: Sequence[str], *, split: Split | None = None, registry: Registry, progress: Progress
) -> Selection:
    """The frames with these ids, and all frames of the scenes among the names; without any, those of ``split``.

    They need no labels.

    Parameters
    ----------
    dataset: of the registry; it is made if it is an embedded one.
    names: of frames and scenes of one split, whichever it is.
    split: None is val, or train of a data set that has no other.

    Raises
    ------
    DitrError: there is no such frame, or the names are of both splits.
    """
    from ditr.data.dataset import open_dataset
    from ditr.rooms import make_missing

    make_missing(dataset, registry=registry, progress=progress)
    opened = open_dataset(dataset, registry=registry)
    if not names:
        return Selection(split=split or tuple(opened.splits)[-1], scored=False)
    found = [_named(name, opened) for name in names]
    splits = {split for split, _ in found}
    if len(splits) > 1:
        what = f"these frames are of both splits of data set {dataset}"
        raise DitrError(what, code=Code.DATASET, where=" ".join(names), fix="Ask for those of one split at a time.")
    frames = tuple(dict.fromkeys(frame for _, of_name in found for frame in of_name))
    return Selection(split=splits.pop(), frames=frames, scored=False)


def _named(name: str, dataset: Dataset) -> tuple[Split, tuple[str, ...]]:
    """A split, and the frames of it that ``name`` means."""
    for split, frames in dataset.splits.items():
        if of_scene := tuple(info.id for info in frames.infos.frames if info.scene == name):
            return split, of_scene
    found, _ = dataset.find(name)
    return next(split for split, frames in dataset.splits.items() if frames is found), (name,)
