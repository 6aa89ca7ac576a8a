"""What becomes of a point: right, missed, on void or nothing, by hand."""

from __future__ import annotations

import numpy as np

from ditr.data.frame_view import FrameView
from ditr.evaluation.instances import Instances, prediction_of
from ditr.evaluation.point_outcomes import PointOutcome, PointOutcomes, least_shown, point_outcomes

NOTHING, RIGHT, MISSED, ON_VOID = PointOutcome.NOTHING, PointOutcome.RIGHT, PointOutcome.MISSED, PointOutcome.ON_VOID
TRUTH = np.array([0, 0, 0, 0, 1, 1, -1, -1])


def outcomes(
    *masks: str, truth: np.ndarray = TRUTH, scores: list[float] | None = None, min_score: float = 0.0
) -> PointOutcomes:
    """Of predictions that are written as a digit a point."""
    given = np.array([[digit == "1" for digit in mask] for mask in masks], dtype=bool).reshape(-1, len(truth))
    found = Instances(masks=given, scores=np.array(scores or [1.0] * len(given), dtype=np.float32))
    view = FrameView(
        frame_id="scene0000_00_0",
        image=np.zeros((4, 4, 3), dtype=np.uint8),
        uv=np.zeros((len(truth), 2), dtype=np.float32),
        uv_valid=np.ones(len(truth), dtype=bool),
        instance_of_point=truth,
        prediction=prediction_of(found, instance_of_point=truth),
    )
    return point_outcomes(view, min_score=min_score)


def test_a_prediction_knows_which_instance_it_is_right_about() -> None:
    truth = np.array([0] * 10 + [1] * 10 + [-1] * 4)
    masks = np.stack([np.arange(24) < 9, (np.arange(24) >= 5) & (np.arange(24) < 12), np.arange(24) >= 22])
    found = prediction_of(Instances(masks=masks, scores=np.array([0.9, 0.5, 0.1])), instance_of_point=truth)
    assert found.of_point.tolist() == [0] * 9 + [1] * 3 + [-1] * 10 + [2] * 2, "the best prediction of each point"
    assert found.partner.tolist() == [0, -1, -1], "0.9 of the first; 5 of 12 and 2 of 15 points, and void"


def test_each_point_has_one_outcome() -> None:
    found = outcomes("11100010", "00001000")  # 3 of 4 of instance 0 and one void point, IoU 3 / 5; half of instance 1
    assert found.outcome.tolist() == [RIGHT, RIGHT, RIGHT, MISSED, MISSED, MISSED, ON_VOID, NOTHING]
    assert found.predicted.tolist() == [0, 0, 0, -1, 1, -1, 0, -1]
    assert found.matched.tolist() == [0, 0, 0, -1, -1, -1, 0, -1]
    assert (found.found, found.total, found.shown) == (1, 2, 2)
    assert found.share(RIGHT) == 3 / 8
    assert sum(map(found.share, PointOutcome)) == 1


def test_a_point_of_one_instance_that_is_said_to_be_of_another_is_missed() -> None:
    found = outcomes("11110100")  # right about instance 0, and takes a point of instance 1
    assert found.matched.tolist() == [0, 0, 0, 0, -1, 0, -1, -1]
    assert found.outcome.tolist() == [RIGHT] * 4 + [MISSED, MISSED, NOTHING, NOTHING]


def test_the_best_prediction_of_a_point_decides() -> None:
    found = outcomes("00100011", "11110000", scores=[0.9, 0.8])
    assert found.outcome.tolist() == [RIGHT, RIGHT, MISSED, RIGHT, MISSED, MISSED, ON_VOID, ON_VOID]
    assert found.found == 1


def test_predictions_below_the_score_do_not_count() -> None:
    masks = ("11110000", "00001100", "00000011")
    assert outcomes(*masks, scores=[0.9, 0.6, 0.3], min_score=0.6).shown == 2
    found = outcomes(*masks, scores=[0.9, 0.6, 0.3], min_score=0.61)
    assert found.outcome.tolist() == [RIGHT] * 4 + [MISSED] * 2 + [NOTHING] * 2
    assert (found.found, found.shown) == (1, 1)


def test_two_predictions_of_one_instance_find_one() -> None:
    assert outcomes("11110000", "11100000").found == 1


def test_without_predictions_all_is_missed() -> None:
    found = outcomes()
    assert found.outcome.tolist() == [MISSED] * 6 + [NOTHING] * 2
    assert (found.found, found.total, found.shown) == (0, 2, 0)


def test_without_ground_truth_all_is_void() -> None:
    found = outcomes("10", truth=np.array([-1, -1]), scores=[0.9])
    assert found.outcome.tolist() == [ON_VOID, NOTHING]
    assert (found.found, found.total) == (0, 0)


def test_pictures_show_from_the_runs_best_score_or_the_frames_best_few() -> None:
    scores = np.linspace(0.9, 0.1, 9)
    assert least_shown(scores, best_score=0.42) == 0.42
    assert least_shown(scores, best_score=np.inf) == scores[7]
    assert least_shown(scores[:3], best_score=np.inf) == scores[2]
    assert least_shown(scores[:0], best_score=np.inf) == 1
