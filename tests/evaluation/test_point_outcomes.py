"""What becomes of a point: right, missed, on void or nothing, by hand."""

from __future__ import annotations

import numpy as np

from ditr.evaluation.kept import best_of_point, least_shown, partners
from ditr.evaluation.point_outcomes import Outcome, PointOutcomes, point_outcomes

NOTHING, RIGHT, MISSED, ON_VOID = Outcome.NOTHING, Outcome.RIGHT, Outcome.MISSED, Outcome.ON_VOID
TRUTH = np.array([0, 0, 0, 0, 1, 1, -1, -1])


def outcomes(*masks: str, scores: list[float] | None = None, min_score: float = 0.0) -> PointOutcomes:
    """Of predictions that are written as a digit a point."""
    given = np.array([[digit == "1" for digit in mask] for mask in masks], dtype=bool).reshape(-1, len(TRUTH))
    return point_outcomes(
        TRUTH,
        predicted=best_of_point(given),
        partner=partners(given, TRUTH),
        scores=np.array(scores or [1.0] * len(given), dtype=np.float32),
        min_score=min_score,
    )


def test_each_point_has_one_outcome() -> None:
    found = outcomes("11100010", "00001000")  # 3 of 4 of instance 0 and one void point, IoU 3 / 5; half of instance 1
    assert found.outcome.tolist() == [RIGHT, RIGHT, RIGHT, MISSED, MISSED, MISSED, ON_VOID, NOTHING]
    assert found.predicted.tolist() == [0, 0, 0, -1, 1, -1, 0, -1]
    assert found.matched.tolist() == [0, 0, 0, -1, -1, -1, 0, -1]
    assert (found.found, found.total, found.shown) == (1, 2, 2)
    assert found.share(RIGHT) == 3 / 8
    assert sum(map(found.share, Outcome)) == 1


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
    mask = np.array([[True, False]])
    found = point_outcomes(
        np.array([-1, -1]),
        predicted=best_of_point(mask),
        partner=partners(mask, np.array([-1, -1])),
        scores=np.array([0.9]),
        min_score=0,
    )
    assert found.outcome.tolist() == [ON_VOID, NOTHING]
    assert (found.found, found.total) == (0, 0)


def test_pictures_show_from_the_runs_best_score_or_the_frames_best_few() -> None:
    scores = np.linspace(0.9, 0.1, 9)
    assert least_shown(scores, best_score=0.42) == 0.42
    assert least_shown(scores, best_score=np.inf) == scores[7]
    assert least_shown(scores[:3], best_score=np.inf) == scores[2]
    assert least_shown(scores[:0], best_score=np.inf) == 1
