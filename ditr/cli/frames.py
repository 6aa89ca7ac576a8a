"""One frame of a data set by its id, for the commands that draw one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ditr.errors import Code, DitrError

if TYPE_CHECKING:
    from ditr.data.dataset import Dataset
    from ditr.data.scannet_sv import FrameSet


def find_frame(frame: str, dataset: Dataset) -> tuple[FrameSet, int]:
    """The split that has it and its index there; DitrError with near names if neither has."""
    for frames in (dataset.train, dataset.val):
        if frame in frames.ids:
            return frames, frames.ids.index(frame)
    known = (*dataset.train.ids, *dataset.val.ids)
    close = difflib.get_close_matches(frame, known, n=3, cutoff=0.3) or known[:3]
    raise DitrError(
        f"data set {dataset.name} has no frame {frame!r}",
        code=Code.DATASET,
        where=str(dataset.root),
        fix=f"use one of its {len(known)} frames, such as {', '.join(close)}",
    )
