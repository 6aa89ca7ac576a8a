"""What panels show depends on how good the run is: its best score, or a few predictions where none is right."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest
from matplotlib.figure import Figure

from ditr.data.frame_view import FrameView
from ditr.evaluation.evaluate import Evaluation
from ditr.evaluation.instances import Instances, prediction_of
from ditr.evaluation.match_table import MatchTable
from ditr.evaluation.point_outcomes import SHOWN_OF_NONE
from ditr.report import frame_pictures, run_pictures

TRUTH = np.repeat([0, 1], 50)


def panels(masks: list[np.ndarray], scores: list[float], folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """The words on the panel of one frame of 100 points with two instances."""
    found = Instances(masks=np.array(masks, dtype=bool).reshape(-1, 100), scores=np.array(scores, dtype=np.float32))
    table = MatchTable(min_points=1)
    table.add("scene0000_00_0", found, TRUTH)
    view = FrameView(
        frame_id="scene0000_00_0",
        image=np.zeros((4, 4, 3), dtype=np.uint8),
        uv=np.zeros((100, 2), dtype=np.float32),
        uv_valid=np.ones(100, dtype=bool),
        instance_of_point=TRUTH,
        prediction=prediction_of(found, instance_of_point=TRUTH),
    )
    drawn: list[Figure] = []
    patch.setattr(frame_pictures, "Figure", lambda **named: drawn.append(Figure(**named)) or drawn[-1])
    evaluation = create_autospec(Evaluation, instance=True, table=table, views=(view,))
    run_pictures.draw_run(folder, evaluation=evaluation, name="run")
    assert (folder / "pr_curve.png").stat().st_size > 0
    assert (folder / "panel_scene0000_00_0.png").stat().st_size > 0
    (figure,) = drawn
    return [figure.get_suptitle(), *(axes.get_title(loc="left") for axes in figure.axes)]


def test_the_best_score_chooses_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [TRUTH == 0, TRUTH == 1, np.arange(100) % 2 == 0]
    asked = panels(masks, [0.2, 0.1, 0.05], tmp_path, monkeypatch)
    title, *captions = asked
    assert "2 of 2 found; 2 of 3 predictions, score 0.10 or more" in captions
    assert title == "run: scene0000_00_0"


def test_a_run_that_finds_nothing_shows_its_best_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [np.arange(100) % 10 == index for index in range(10)]
    asked = panels(masks, [0.1 - 0.001 * index for index in range(10)], tmp_path, monkeypatch)
    assert f"0 of 2 found; {SHOWN_OF_NONE} of 10 predictions, score 0.09 or more" in asked
    assert "No prediction of the run matches anything" in asked[0]


def test_a_run_without_predictions_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no predictions" in panels([], [], tmp_path, monkeypatch)
