"""From a predictor to a folder: the files of every frame, and the scenes that the frames are merged to."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from ditr.data.loading import worker_context
from ditr.files import write_json
from ditr.progress import Progress
from ditr.report.prediction_files import FOLDERS, write_frame
from ditr.report.scene_files import SCENES
from ditr.runner.merging import Merging
from ditr.runner.prediction_folder import RESULT, unwritable
from ditr.runner.predictor import Predictor
from ditr.workers import end_with_parent


def write_predictions(
    predictor: Predictor, folder: Path, *, merging: Merging | None, progress: Progress
) -> dict[str, Any]:
    """Writes what there is of every frame, and at the end ``result.json``, which is returned.

    Pictures take longer than the model: they are drawn by processes beside it, one a core.

    Parameters
    ----------
    folder: is made where it is not there.
    merging: takes every frame, and writes there too.

    Raises
    ------
    DitrError: a frame cannot be read, or nothing more can be written.
    """
    total, infer_ms, began = len(predictor), list[float](), time.monotonic()
    write = partial(write_frame, folder, model=predictor.trained.name, best_score=predictor.trained.best_score)
    try:
        for kind in FOLDERS if merging is None else (*FOLDERS, SCENES):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        with closing(predictor.predict()) as predicted, _Beside(min(total, len(os.sched_getaffinity(0)))) as beside:
            for frame in predicted:
                progress("predict", frame.index, total)
                infer_ms.append(frame.infer_ms)
                beside.do(partial(write, frame.view, frame.found))
                if merging is not None:
                    merging.add(frame)
        result = predictor.facts() | {
            "frames_per_s": total / (time.monotonic() - began),
            "model_frames_per_s": 1000 / median(infer_ms),
        }
        if merging is not None:
            result |= merging.facts()
        write_json(folder / RESULT, result)
    except OSError as error:
        raise unwritable(folder, error) from error
    progress("predict", total, total)
    return result


class _Beside:
    """Processes that work beside this one, with few things waiting for them; errors come back with later work."""

    def __init__(self, processes: int) -> None:
        self._pool = ProcessPoolExecutor(processes, mp_context=worker_context(), initializer=end_with_parent)
        self._most = 2 * processes
        self._under_way: deque[Future[None]] = deque()

    def __enter__(self) -> _Beside:
        return self

    def do(self, work: Callable[[], None]) -> None:
        if len(self._under_way) == self._most:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(work))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for future in self._under_way:
                future.result()
