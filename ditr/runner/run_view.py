"""One frame as a finished run sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from ditr.data.frame_view import FrameView
from ditr.progress import Progress, silent
from ditr.record.folder import Record
from ditr.runner.predictor import Predictor
from ditr.runner.selection import select
from ditr.runner.trained_model import trained_in
from ditr.spec.registry import Registry


def view_frame(
    run: Record, frame_id: str, *, registry: Registry, progress: Progress = silent, say: Callable[[str], None]
) -> tuple[FrameView, float]:
    """The frame with this id in the run's data set, and the best score of the run (``TrainedModel.best_score``).

    Raises
    ------
    DitrError: the run has left no weights or no spec, its data set is not here, or has no such frame.
    """
    trained = trained_in(run)
    name = trained.spec.dataset.name
    selection = select(name, (frame_id,), registry=registry, progress=progress)
    predictor = Predictor(trained, dataset=name, selection=selection, registry=registry, progress=progress, say=say)
    with closing(predictor.predict()) as predicted:
        return next(predicted).view, trained.best_score
