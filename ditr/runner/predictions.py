"""From a predictor to a folder: the files of every frame, and the scenes that the frames are merged to."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from ditr.errors import Code, DitrError
from ditr.files import write_json
from ditr.progress import Progress
from ditr.report.prediction_files import FOLDERS, write_frame
from ditr.report.scene_files import SCENES
from ditr.runner.merging import Merging
from ditr.runner.predictor import Predictor


def make_folder(folder: Path, *, merged: bool) -> None:
    """The empty folder and those in it, before any work is done.

    Raises
    ------
    DitrError: there is something in it, or it cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fix = "Name a new folder."
        raise DitrError("there is something already", code=Code.ENVIRONMENT, where=str(folder), fix=fix)
    try:
        for kind in (*FOLDERS, SCENES) if merged else FOLDERS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder cannot be made: {error.strerror}"
        raise DitrError(what, code=Code.ENVIRONMENT, where=str(folder), fix="Name another folder.") from error


def write_predictions(
    predictor: Predictor, folder: Path, *, merging: Merging | None, progress: Progress
) -> dict[str, Any]:
    """Writes what there is of every frame, and at the end ``result.json``, which is returned.

    Parameters
    ----------
    folder: that of ``make_folder``.
    merging: takes every frame.
    """
    trained, total, model_ms = predictor.trained, len(predictor), 0.0
    began = time.monotonic()
    with closing(predictor.predict()) as predicted:
        for frame in predicted:
            progress("predict", frame.index, total)
            model_ms += frame.infer_ms
            write_frame(folder, frame.view, frame.found, model=trained.name, best_score=trained.best_score)
            if merging is not None:
                merging.add(frame)
    progress("predict", total, total)
    result = predictor.facts() | {
        "frames_per_s": total / (time.monotonic() - began),
        "model_frames_per_s": 1000 * total / model_ms,
    }
    if merging is not None:
        result |= merging.facts()
    write_json(folder / "result.json", result)
    return result
