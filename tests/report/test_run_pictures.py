"""What panels show depends on how good the run is: its best score, or a few predictions where none is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest

from ditr.data.scannet_sv import FrameSet
from ditr.evaluation.evaluate import Evaluation
from ditr.evaluation.instances import Instances
from ditr.evaluation.kept import SHOWN_OF_NONE, KeptFrame
from ditr.evaluation.match_table import MatchTable
from ditr.report import run_pictures

TRUTH = np.repeat([0, 1], 50)


def panels(masks: list[np.ndarray], scores: list[float], folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``panel`` is asked to draw for one frame of 100 points with two instances."""
    predicted = Instances(masks=np.array(masks, dtype=bool).reshape(-1, 100), scores=np.array(scores, dtype=np.float32))
    table = MatchTable(min_points=1)
    table.add("scene0000_00_0", predicted, TRUTH)
    kept = KeptFrame(
        index=0, frame_id="scene0000_00_0", uv=np.zeros((100, 2), dtype=np.float32),
        uv_valid=np.ones(100, dtype=bool), instance_of_point=TRUTH, predicted=predicted,
    )  # fmt: skip
    asked: dict[str, Any] = {}
    patch.setattr(run_pictures, "panel", lambda image, **given: asked.update(given))
    evaluation = create_autospec(Evaluation, instance=True, table=table, kept=(kept,))
    run_pictures.draw_run(folder, evaluation=evaluation, frames=create_autospec(FrameSet, instance=True), name="run")
    assert (folder / "pr_curve.png").stat().st_size > 0
    return asked


def test_the_best_score_chooses_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [TRUTH == 0, TRUTH == 1, np.arange(100) % 2 == 0]
    asked = panels(masks, [0.2, 0.1, 0.05], tmp_path, monkeypatch)
    assert asked["min_score"] == pytest.approx(0.1)
    assert "matches" not in asked["title"]


def test_a_run_that_finds_nothing_shows_its_best_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [np.arange(100) % 10 == index for index in range(10)]
    asked = panels(masks, [0.1 - 0.001 * index for index in range(10)], tmp_path, monkeypatch)
    assert np.sum(asked["scores"] >= asked["min_score"]) == SHOWN_OF_NONE
    assert "No prediction of the run matches anything" in asked["title"]


def test_a_run_without_predictions_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not len(panels([], [], tmp_path, monkeypatch)["masks"])
