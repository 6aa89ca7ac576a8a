"""The vectorised AP against a slow transcription of the protocol, and what any AP must satisfy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ditr.evaluation.instance_ap import (
    ESAM_THRESHOLDS,
    Outcomes,
    average_precision,
    outcomes,
    pool,
    pooled_ap,
    precision_recall,
    scores,
)
from ditr.evaluation.instances import Instances
from ditr.evaluation.match_table import MatchTable
from tests.reference.slow_scannet_eval import (
    PROTOCOL_THRESHOLDS,
    SlowFrame,
    slow_average_precision,
    slow_scores,
)

MIN_POINTS = 12
THRESHOLDS = (*ESAM_THRESHOLDS, 0.25)


def random_frame(rng: np.random.Generator) -> SlowFrame:
    """Contiguous instances of very different sizes, void gaps, and predictions that are noisy copies, twins or junk."""
    points = int(rng.integers(40, 260))
    cuts = np.sort(rng.integers(0, points + 1, size=int(rng.integers(1, 9))))
    truth = np.searchsorted(cuts, np.arange(points), side="right") - 1
    truth[np.isin(truth, rng.integers(0, 8, size=int(rng.integers(0, 4))))] = -1
    truth = np.unique(truth, return_inverse=True)[1] - (1 if (truth == -1).any() else 0)
    masks = []
    for _ in range(int(rng.integers(0, 14))):
        kind = rng.integers(4)
        if masks and kind == 0:
            mask = masks[int(rng.integers(len(masks)))].copy()
        elif kind == 1:
            start, stop = np.sort(rng.integers(0, points + 1, size=2))
            mask = (np.arange(points) >= start) & (np.arange(points) < stop)
        else:
            mask = np.isin(truth, rng.integers(-1, truth.max() + 2, size=int(rng.integers(1, 3))))
        masks.append(mask ^ (rng.random(points) < rng.choice([0.0, 0.02, 0.1, 0.3])))
    confidence = np.sort(rng.integers(1, 8, size=len(masks)) / 8)[::-1].astype(np.float32)
    if rng.random() < 0.3:
        rng.shuffle(confidence)
    return SlowFrame(np.array(masks, dtype=bool).reshape(-1, points), confidence, truth)


def table_of(frames: list[SlowFrame], *, min_points: int = MIN_POINTS) -> MatchTable:
    table = MatchTable(min_points=min_points)
    for index, frame in enumerate(frames):
        table.add(f"scene_{index}", Instances(masks=frame.masks, scores=frame.scores), frame.instance_of_point)
    return table


def one_frame(truth: list[int], *predictions: tuple[float, list[int]], min_points: int = 1) -> MatchTable:
    """A frame whose predictions are given as (score, indices of points)."""
    masks = np.zeros((len(predictions), len(truth)), dtype=bool)
    for row, (_, inside) in enumerate(predictions):
        masks[row, inside] = True
    confidence = np.array([score for score, _ in predictions], dtype=np.float32)
    return table_of([SlowFrame(masks, confidence, np.array(truth))], min_points=min_points)


def frames_of(seed: int, count: int) -> list[SlowFrame]:
    rng = np.random.default_rng(seed)
    return [random_frame(rng) for _ in range(count)]


def found_in(table: MatchTable, *, threshold: float) -> Outcomes:
    return outcomes(pool(table), threshold=threshold)


def test_esams_protocol_has_nine_thresholds_and_25() -> None:
    assert pytest.approx(PROTOCOL_THRESHOLDS, abs=1e-12) == THRESHOLDS


def test_ap_is_the_mean_over_ten_thresholds_or_esams_nine_and_both_are_always_there() -> None:
    frames = frames_of(7, 40)
    ten = [0.5 + 0.05 * step for step in range(10)]
    slow = slow_average_precision(frames, thresholds=[*ten, 0.25], min_points=MIN_POINTS)
    assert slow[9] != sum(slow[:9]) / 9, "else the two means are one"
    fixed, compat = scores(table_of(frames)), scores(table_of(frames), thresholds=ESAM_THRESHOLDS)
    assert fixed.ap == pytest.approx(sum(slow[:10]) / 10, abs=1e-9)
    assert compat.ap == pytest.approx(sum(slow[:9]) / 9, abs=1e-9)
    for found in (fixed, compat):
        assert (found.ap_to_90, found.ap_to_95) == (compat.ap, fixed.ap)
        assert (found.ap50, found.ap25) == pytest.approx((slow[0], slow[10]), abs=1e-9)


@pytest.mark.parametrize("seed", range(50))
def test_equals_the_slow_transcription_on_random_frames(seed: int) -> None:
    frames = frames_of(seed, 40)
    expected = slow_average_precision(frames, thresholds=PROTOCOL_THRESHOLDS, min_points=MIN_POINTS)
    np.testing.assert_allclose(average_precision(table_of(frames), thresholds=THRESHOLDS), expected, atol=1e-9)
    found = scores(table_of(frames), thresholds=ESAM_THRESHOLDS)
    np.testing.assert_allclose(
        (found.ap, found.ap50, found.ap25), slow_scores(frames, min_points=MIN_POINTS), atol=1e-9
    )


def test_equals_the_slow_transcription_on_every_single_frame() -> None:
    for frame in frames_of(1000, 300):
        expected = slow_average_precision([frame], thresholds=[0.25, 0.5, 0.8], min_points=MIN_POINTS)
        np.testing.assert_allclose(
            average_precision(table_of([frame]), thresholds=(0.25, 0.5, 0.8)), expected, atol=1e-9
        )


def test_random_frames_hold_every_case_of_the_protocol() -> None:
    table = table_of(frames_of(0, 40))
    flat = [(frame, frame.pair_iou > 0.25) for frame in table.frames]
    assert any((frame.gt_sizes < MIN_POINTS).any() for frame, _ in flat), "small ground truth"
    assert any((frame.sizes < MIN_POINTS).any() for frame, _ in flat), "small predictions"
    assert any((frame.void > frame.sizes / 2).any() for frame, _ in flat), "predictions on void"
    assert any((np.bincount(frame.pair_gt[reach]) > 1).any() for frame, reach in flat if reach.any()), "duplicates"
    assert any((np.bincount(frame.pair_pred[reach]) > 1).any() for frame, reach in flat if reach.any()), "two at .25"
    assert any(len(np.unique(frame.scores)) < len(frame.scores) for frame, _ in flat), "score ties"
    assert any(len(frame.scores) == 0 for frame, _ in flat), "frames without predictions"
    assert any((frame.gt_sizes >= MIN_POINTS).sum() == 0 for frame, _ in flat), "frames without ground truth"


def test_iou_equal_to_the_threshold_is_no_match() -> None:
    table = one_frame([0, 0, -1, -1], (0.9, [0]))
    assert average_precision(table, thresholds=(0.49, 0.5)).tolist() == [1.0, 0.0]


def test_a_duplicate_costs_one_false_positive_with_the_lower_score() -> None:
    table = one_frame([0] * 4 + [1] * 4, (0.9, [0, 1, 2, 3]), (0.8, [0, 1, 2]), (0.7, [4, 5, 6, 7]))
    found = outcomes(pool(table), threshold=0.5)
    assert found.score == pytest.approx([0.7, 0.8, 0.9])
    assert found.is_true.tolist() == [True, False, True]
    # recall 1 at precision 2/3, .5 at 1/2, .5 at 1, then down to (0, 1): trapezoids between them
    assert average_precision(table, thresholds=(0.5,))[0] == pytest.approx(0.5 * (2 / 3 + 1 / 2) / 2 + 0.5)


def test_a_later_duplicate_with_a_higher_score_takes_over_the_score() -> None:
    found = found_in(one_frame([0] * 4, (0.2, [0, 1, 2, 3]), (0.8, [0, 1, 2])), threshold=0.5)
    assert found.score == pytest.approx([0.2, 0.8])
    assert found.is_true.tolist() == [False, True]


def test_a_second_prediction_stays_free_for_another_instance_at_a_low_threshold() -> None:
    both = list(range(8))
    found = found_in(one_frame([0] * 4 + [1] * 4, (0.9, [0, 1, 2, 3]), (0.8, both)), threshold=0.25)
    assert sorted(zip(found.score.round(3).tolist(), found.is_true.tolist(), strict=True)) == [
        (0.8, False),
        (0.8, True),
        (0.9, True),
    ]


def test_a_prediction_on_small_ground_truth_is_neither_right_nor_wrong() -> None:
    truth, on_small = [0] * 20 + [1] * 5 + [-1] * 5, list(range(20, 26))
    found = found_in(one_frame(truth, (0.9, list(range(20))), (0.95, on_small), min_points=6), threshold=0.5)
    assert (found.num_gt.tolist(), found.is_true.tolist()) == ([1], [True])
    counted = found_in(one_frame(truth, (0.9, list(range(20))), (0.95, on_small), min_points=5), threshold=0.5)
    assert (counted.num_gt.tolist(), counted.is_true.tolist()) == ([2], [True, True])


@pytest.mark.parametrize(("on_void", "false_positives"), [(5, 1), (6, 0)])
def test_a_prediction_is_excused_only_by_more_void_than_the_threshold(on_void: int, false_positives: int) -> None:
    mask = [*range(10 - on_void), *range(20, 20 + on_void)]
    found = found_in(one_frame([0] * 20 + [-1] * 10, (0.9, mask)), threshold=0.5)
    assert len(found.score) == false_positives


def test_no_ground_truth_is_nan_and_no_prediction_is_zero() -> None:
    assert np.isnan(average_precision(one_frame([-1] * 8, (0.9, [0, 1, 2])), thresholds=(0.5,))[0])
    assert average_precision(one_frame([0] * 8), thresholds=(0.5,))[0] == 0.0
    assert np.isnan(scores(MatchTable(min_points=1)).ap50)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_perfect_predictions_score_one(seed: int) -> None:
    frames = []
    for frame in frames_of(seed, 4):
        truth = frame.instance_of_point
        masks = truth == np.arange(truth.max() + 1)[:, None]
        frames.append(SlowFrame(masks, np.linspace(0.9, 0.1, len(masks)), truth))
    values = average_precision(table_of(frames), thresholds=THRESHOLDS)
    assert np.isnan(values).all() or values == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), score=st.floats(0.01, 1))
def test_a_prediction_on_void_changes_nothing(seed: int, score: float) -> None:
    frames = frames_of(seed, 4)
    more = [
        SlowFrame(
            np.vstack([frame.masks, frame.instance_of_point == -1]),
            np.append(frame.scores, np.float32(score)),
            frame.instance_of_point,
        )
        for frame in frames
    ]
    before = average_precision(table_of(frames), thresholds=THRESHOLDS)
    np.testing.assert_array_equal(average_precision(table_of(more), thresholds=THRESHOLDS), before)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), chosen=st.lists(st.integers(0, 7), min_size=1, unique=True))
def test_a_subset_scores_as_if_only_it_had_been_evaluated(seed: int, chosen: list[int]) -> None:
    frames = frames_of(seed, 8)
    table = table_of(frames)
    alone = average_precision(table_of([frames[index] for index in chosen]), thresholds=THRESHOLDS)
    subset = table.subset([f"scene_{index}" for index in chosen])
    np.testing.assert_allclose(average_precision(subset, thresholds=THRESHOLDS), alone, atol=1e-12)
    times = np.zeros(8, dtype=np.int64)
    times[chosen] = 1
    weighted = [pooled_ap(outcomes(pool(table), threshold=threshold), times=times) for threshold in THRESHOLDS]
    np.testing.assert_allclose(weighted, alone, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), times=st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_a_resample_counts_a_frame_as_often_as_it_was_drawn(seed: int, times: list[int]) -> None:
    frames = frames_of(seed, 5)
    repeated = [frame for frame, count in zip(frames, times, strict=True) for _ in range(count)]
    expected = average_precision(table_of(repeated), thresholds=(0.25, 0.5))
    table = table_of(frames)
    found = [pooled_ap(outcomes(pool(table), threshold=t), times=np.array(times)) for t in (0.25, 0.5)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_frames_does_not_matter(seed: int) -> None:
    table = table_of(frames_of(seed, 6))
    order = np.random.default_rng(seed).permutation(table.frame_ids)
    np.testing.assert_allclose(
        average_precision(table.subset(order), thresholds=THRESHOLDS),
        average_precision(table, thresholds=THRESHOLDS),
        atol=1e-12,
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_recall_never_rises_with_the_threshold(seed: int) -> None:
    table = table_of(frames_of(seed, 6))
    true = [int(outcomes(pool(table), threshold=threshold).is_true.sum()) for threshold in sorted(THRESHOLDS)]
    assert true[1:] == sorted(true[1:], reverse=True)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_area_of_the_drawn_curve_is_the_ap(seed: int) -> None:
    table = table_of(frames_of(seed, 6))
    curve = precision_recall(table, threshold=0.5)
    ap = average_precision(table, thresholds=(0.5,))[0]
    if np.isnan(ap):
        return
    assert -np.trapezoid(curve.precision, curve.recall) == pytest.approx(ap, abs=1e-12)
    assert (np.diff(curve.recall) <= 0).all()
    assert (np.diff(curve.score) > 0).all()


def test_the_best_score_balances_precision_and_recall() -> None:
    table = one_frame(
        [0] * 4 + [1] * 4 + [2] * 4,
        (0.9, [0, 1, 2, 3]),
        (0.8, [4, 5, 6, 7]),
        (0.3, [0, 5, 9]),
        (0.2, [1, 6, 10]),
    )
    assert precision_recall(table, threshold=0.5).best_score == pytest.approx(0.8)
    assert precision_recall(one_frame([0] * 4), threshold=0.5).best_score == np.inf
