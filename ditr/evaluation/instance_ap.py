"""Class-agnostic average precision by ScanNet's protocol as ESAM uses it (docs/reference/esam.md, Evaluation).

Matching is a frame's own business, so it is done once a threshold; precision and recall then pool the outcomes of any
choice of frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ditr.evaluation.match_table import MatchTable

AP_THRESHOLDS = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
"""IoU above which a prediction is right; AP is the mean over the ten."""
ESAM_THRESHOLDS = AP_THRESHOLDS[:-1]
"""Nine: ESAM's range ends before 0.95."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """AP in 0..1; NaN where there is no ground truth."""

    ap: float
    """The one of the two means below that was asked for."""
    ap50: float
    ap25: float
    ap_to_90: float
    """Mean over nine thresholds, 0.50 to 0.90: what ESAM reports."""
    ap_to_95: float
    """Mean over ten thresholds, 0.50 to 0.95."""


@dataclass(frozen=True, kw_only=True)
class PooledFrames:
    """All F frames of a table end to end, without the predictions that are too small: G, K and P over all frames.

    Predictions stand in the order of their scores, worst first: whoever sorts by score sorts their indices.
    """

    num_frames: int
    gt_counts: np.ndarray
    """(G,) bool: large enough to be looked for."""
    gt_frame: np.ndarray
    """(G,) int64 index of the frame in the table; so is pred_frame."""
    scores: np.ndarray
    """(K,) float64, ascending."""
    excusable: np.ndarray
    """(K,) float64 share of the prediction's points that are void or on ground truth too small to count."""
    pred_frame: np.ndarray
    """(K,) int64."""
    pair_gt: np.ndarray
    """(P,) int64 0..G-1, ascending."""
    pair_pred: np.ndarray
    """(P,) int64 0..K-1, within a ground-truth instance in the frame's order of predictions."""
    pair_iou: np.ndarray
    """(P,) float64."""


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What became of predictions and ground truth of F frames at one IoU threshold; E true and false positives."""

    score: np.ndarray
    """(E,) float64, ascending."""
    is_true: np.ndarray
    """(E,) bool: true positive, else false positive."""
    frame: np.ndarray
    """(E,) int64 index of the frame in the table."""
    num_gt: np.ndarray
    """(F,) int64 ground-truth instances that count."""


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """The curve over T distinct scores, ascending, and its artificial end at precision 1, recall 0."""

    precision: np.ndarray
    """(T + 1,)"""
    recall: np.ndarray
    """(T + 1,) descending."""
    score: np.ndarray
    """(T + 1,) predictions of at least this score are counted; inf at the end."""

    @property
    def average_precision(self) -> float:
        """Area under the straight lines between the points, from the largest recall reached down to 0."""
        return float(np.sum((self.precision[:-1] + self.precision[1:]) / 2 * -np.diff(self.recall)))

    @property
    def best_score(self) -> float:
        """The score from which on precision and recall are in best balance (F1); inf if nothing is found."""
        total = self.precision + self.recall
        f1 = np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)
        return float(self.score[np.flatnonzero(f1 == f1.max())[-1]])


def scores(table: MatchTable, *, thresholds: Sequence[float] = AP_THRESHOLDS) -> Scores:
    """AP, AP50 and AP25 of a table; AP is the mean over ``thresholds``, some or all of ``AP_THRESHOLDS``."""
    every = (*AP_THRESHOLDS, 0.25)
    values = dict(zip(every, average_precision(table, thresholds=every).tolist(), strict=True))

    def mean(chosen: Sequence[float]) -> float:
        return float(np.mean([values[threshold] for threshold in chosen]))

    return Scores(
        ap=mean(thresholds),
        ap50=values[0.50],
        ap25=values[0.25],
        ap_to_90=mean(ESAM_THRESHOLDS),
        ap_to_95=mean(AP_THRESHOLDS),
    )


def average_precision(table: MatchTable, *, thresholds: Sequence[float]) -> np.ndarray:
    """(len(thresholds),) AP of all frames pooled; NaN without ground truth that counts, 0 if nothing was predicted."""
    pooled = pool(table, above=min(thresholds))
    return np.array([pooled_ap(outcomes(pooled, threshold=threshold)) for threshold in thresholds])


def pooled_ap(found: Outcomes, *, times: np.ndarray | None = None) -> float:
    """AP when frame f counts ``times[f]`` times, (F,) int: 0 or 1 choose a subset, a resample repeats; default once."""
    times = np.ones(len(found.num_gt), dtype=np.int64) if times is None else times
    return curve(found, times=times).average_precision if found.num_gt @ times else float("nan")


def precision_recall(table: MatchTable, *, threshold: float) -> PrecisionRecall:
    """The curve behind the AP at one IoU threshold; recall is NaN without ground truth that counts."""
    return curve(outcomes(pool(table), threshold=threshold), times=np.ones(len(table), dtype=np.int64))


def curve(found: Outcomes, *, times: np.ndarray) -> PrecisionRecall:
    """Precision and recall at every distinct score, when frame f counts ``times[f]`` times."""
    weight = times[found.frame]
    present = weight > 0
    score, weight, is_true = found.score[present], weight[present], found.is_true[present]
    first = np.flatnonzero(np.diff(score, prepend=-np.inf))
    true = _from_here_on(weight * is_true, first)
    with np.errstate(invalid="ignore"):
        recall = true / np.float64(found.num_gt @ times)
    return PrecisionRecall(
        precision=np.append(true / _from_here_on(weight, first), 1.0),
        recall=np.append(recall, 0.0),
        score=np.append(score[first], np.inf),
    )


def pool(table: MatchTable, *, above: float = 0.0, counts: Mapping[str, np.ndarray] | None = None) -> PooledFrames:
    """Lay the frames of a table end to end, once for all thresholds from ``above`` on: no other pair is kept.

    ``counts`` chooses, by frame id, the ground truth that is looked for, (G,) bool; the rest is ignored as what is too
    small always is. By default all that is large enough is.
    """
    frames = table.frames
    num_gt = np.array([len(frame.gt_sizes) for frame in frames], dtype=np.int64)
    num_pred = np.array([len(frame.scores) for frame in frames], dtype=np.int64)
    num_pairs = np.array([len(frame.pair_gt) for frame in frames], dtype=np.int64)
    index = np.arange(len(frames))
    sizes = _joined([frame.sizes for frame in frames])
    pair_gt = _joined([frame.pair_gt for frame in frames]) + np.repeat(np.cumsum(num_gt) - num_gt, num_pairs)
    pair_pred = _joined([frame.pair_pred for frame in frames]) + np.repeat(np.cumsum(num_pred) - num_pred, num_pairs)
    gt_counts = _joined([frame.gt_sizes for frame in frames]) >= table.min_points
    if counts is not None:
        gt_counts &= _joined([counts[frame.frame_id] for frame in frames]).astype(bool)
    on_small = _joined([frame.pair_points for frame in frames]) * ~gt_counts[pair_gt]
    excused = _joined([frame.void for frame in frames]) + np.bincount(pair_pred, weights=on_small, minlength=len(sizes))
    pair_iou = _joined([frame.pair_iou for frame in frames])
    kept = sizes >= table.min_points
    pairs = kept[pair_pred] & (pair_iou > above)
    scores = _joined([frame.scores for frame in frames])
    order = np.flatnonzero(kept)[np.argsort(scores[kept], kind="stable")]
    rank = np.empty(len(scores), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return PooledFrames(
        num_frames=len(frames),
        gt_counts=gt_counts,
        gt_frame=np.repeat(index, num_gt),
        scores=scores[order],
        excusable=excused[order] / sizes[order],
        pred_frame=np.repeat(index, num_pred)[order],
        pair_gt=pair_gt[pairs],
        pair_pred=rank[pair_pred[pairs]],
        pair_iou=pair_iou[pairs],
    )


def outcomes(pooled: PooledFrames, *, threshold: float) -> Outcomes:
    """Match the predictions of every frame to its ground truth at IoU above ``threshold``.

    A ground-truth instance takes the first unused prediction; each further one costs a false positive with the lower of
    the two scores. A prediction that reaches no instance of any size is a false positive unless more than ``threshold``
    of its points are void or on small ground truth, which is the benefit of the doubt.
    """
    reaches = np.flatnonzero(pooled.pair_iou > threshold)
    counts = pooled.gt_counts
    true, false = _matched(pooled, pairs=reaches[counts[pooled.pair_gt[reaches]]])
    false += _unmatched(pooled, reaches=reaches, threshold=threshold)
    event = np.repeat(np.arange(2 * len(true)), np.stack([true, false], axis=1).ravel())  # both kinds by prediction
    pred = event // 2
    return Outcomes(
        score=pooled.scores[pred],
        is_true=event % 2 == 0,
        frame=pooled.pred_frame[pred],
        num_gt=np.bincount(pooled.gt_frame[counts], minlength=pooled.num_frames),
    )


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)


def _matched(pooled: PooledFrames, *, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) int64 true positives of each prediction, and false ones that it costs as the second on its ground truth.

    The best score on each ground-truth instance is true, every other one costs a false positive: keeping the higher
    score of two, one prediction after the other, leaves the highest and has cost all others.
    """
    gt, pred = pooled.pair_gt[pairs], pooled.pair_pred[pairs]
    free = _free(gt, pred)
    gt, pred = gt[free], pred[free]
    best = np.full(len(pooled.gt_counts), -1)
    np.maximum.at(best, gt, pred)
    is_true, count = best[gt] == pred, len(pooled.scores)
    return np.bincount(pred[is_true], minlength=count), np.bincount(pred[~is_true], minlength=count)


def _free(gt: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """(P,) bool: no earlier ground-truth instance has taken the pair's prediction. Each takes its first free one.

    Only a prediction that reaches several instances can be taken before, which below IoU 0.5 alone is possible; so the
    loop is over the instances that such predictions reach.
    """
    free = np.ones(len(gt), dtype=bool)
    contested = np.bincount(pred)[pred] > 1 if len(pred) else free
    taken: set[int] = set()
    last = -1
    for pair in np.flatnonzero(np.isin(gt, gt[contested])).tolist():
        if int(pred[pair]) in taken:
            free[pair] = False
        elif gt[pair] != last:
            taken.add(int(pred[pair]))
            last = gt[pair]
    return free


def _unmatched(pooled: PooledFrames, *, reaches: np.ndarray, threshold: float) -> np.ndarray:
    """(K,) bool: the prediction reaches, by the pairs ``reaches``, no ground truth of any size and is not excused."""
    lost = pooled.excusable <= threshold
    lost[pooled.pair_pred[reaches]] = False
    return lost


def _from_here_on(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Sum of ``values`` from each index of ``first`` to the end."""
    return np.asarray(np.cumsum(values[::-1])[::-1][first])
