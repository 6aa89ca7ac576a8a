"""The pictures hold what they say: their colours are counted in the PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from ditr.data.frame_view import FrameView
from ditr.evaluation.instance_ap import PrecisionRecall
from ditr.evaluation.instances import Instances, prediction_of
from ditr.report.frame_colours import INVENTED, MISSED, RIGHT
from ditr.report.frame_pictures import draw_results
from ditr.report.run_pictures import CURVE_COLOURS, pr_curve


def area_of(path: Path, colour: str) -> int:
    """Pixels of nearly this colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels - np.array(to_rgb(colour)) * 255).max(axis=2) < 12).sum())


def draw(path: Path, masks: np.ndarray, *, scores: np.ndarray, visible: bool = True) -> Path:
    """A 32x24 image, every pixel a point: an instance of 8 columns on the left, one on the right, void between."""
    v, u = np.mgrid[0:24, 0:32]
    truth = np.where(u < 8, 0, np.where(u >= 24, 1, -1)).ravel()
    uv = np.stack([u.ravel(), v.ravel()], axis=1)
    return draw_view(path, truth, uv=uv, visible=visible, found=Instances(masks=masks, scores=scores))


def draw_view(path: Path, truth: np.ndarray, *, uv: np.ndarray, visible: bool, found: Instances) -> Path:
    view = FrameView(
        frame_id="scene0000_00_0",
        image=np.full((24, 32, 3), 200, dtype=np.uint8),
        uv=uv.astype(np.float32),
        uv_valid=np.full(truth.size, visible),
        instance_of_point=truth,
        prediction=prediction_of(found, instance_of_point=truth),
    )
    draw_results(view, run="run", best_score=0.5, path=path)
    return path


@pytest.fixture
def columns() -> np.ndarray:
    return np.tile(np.arange(32), 24)


def test_a_perfect_frame_has_nothing_missed_and_nothing_invented(tmp_path: Path, columns: np.ndarray) -> None:
    masks = np.stack([columns < 8, columns >= 24])
    path = draw(tmp_path / "a.png", masks, scores=np.array([0.9, 0.8]))
    legend = area_of(draw(tmp_path / "b.png", masks, scores=np.array([0.9, 0.8]), visible=False), MISSED)
    assert area_of(path, RIGHT) > 5 * area_of(path, MISSED)
    assert area_of(path, MISSED) == legend  # its key in the legend only


def test_errors_show_in_their_colours(tmp_path: Path, columns: np.ndarray) -> None:
    masks = np.stack([(columns >= 10) & (columns < 22), columns < 8])  # one on void, the left one, none on the right
    path = draw(tmp_path / "a.png", masks, scores=np.array([0.9, 0.8]))
    found = {colour: area_of(path, colour) for colour in (RIGHT, MISSED, INVENTED)}
    hidden = draw(tmp_path / "b.png", masks, scores=np.array([0.9, 0.8]), visible=False)
    assert all(area > 1.5 * area_of(hidden, colour) for colour, area in found.items())


def test_predictions_below_the_score_are_not_drawn(tmp_path: Path, columns: np.ndarray) -> None:
    masks = np.stack([columns < 8, columns >= 24])
    none = draw(tmp_path / "a.png", masks, scores=np.array([0.4, 0.3]))
    assert area_of(none, MISSED) > 5 * area_of(none, RIGHT)


def test_a_frame_without_predictions_or_ground_truth_is_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", np.zeros((0, 768), dtype=bool), scores=np.zeros(0))
    void, found = np.full(5, -1), Instances(masks=np.ones((1, 5), dtype=bool), scores=np.array([0.9]))
    draw_view(tmp_path / "b.png", void, uv=np.zeros((5, 2)), visible=True, found=found)
    assert area_of(tmp_path / "b.png", INVENTED) > 0


def test_every_curve_is_drawn_in_its_own_colour(tmp_path: Path) -> None:
    curve = PrecisionRecall(precision=np.array([0.5, 1.0]), recall=np.array([0.8, 0.0]), score=np.array([0.3, np.inf]))
    other = PrecisionRecall(precision=np.array([0.2, 1.0]), recall=np.array([0.6, 0.0]), score=np.array([0.3, np.inf]))
    pr_curve({"AP50": curve, "AP25": other}, path=tmp_path / "pr.png", title="run")
    assert area_of(tmp_path / "pr.png", CURVE_COLOURS[0]) > 300
    assert area_of(tmp_path / "pr.png", CURVE_COLOURS[1]) > 300
