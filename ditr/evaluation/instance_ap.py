"""Class-agnostic average precision by ScanNet's protocol as ESAM uses it (reference: ESAM section 5).

Matching is a frame's own business, so it is done once a threshold; precision and recall then pool the outcomes of any
choice of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ditr.evaluation.match_table import MatchTable

AP_THRESHOLDS = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90)
"""Nine: the protocol's range ends before 0.95."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """AP in 0..1; NaN where there is no ground truth."""

    ap: float
    """Mean over the nine thresholds."""
    ap50: float
    ap25: float


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


def scores(table: MatchTable) -> Scores:
    """AP, AP50 and AP25 of a table."""
    values = average_precision(table, thresholds=(*AP_THRESHOLDS, 0.25))
    return Scores(ap=float(values[:-1].mean()), ap50=float(values[0]), ap25=float(values[-1]))


def average_precision(table: MatchTable, *, thresholds: Sequence[float]) -> np.ndarray:
    """(len(thresholds),) AP of all frames pooled; NaN without ground truth that counts, 0 if nothing was predicted."""
    return np.array([pooled_ap(outcomes(table, threshold=threshold)) for threshold in thresholds])


def pooled_ap(found: Outcomes, *, times: np.ndarray | None = None) -> float:
    """AP when frame f counts ``times[f]`` times, (F,) int: 0 or 1 choose a subset, a resample repeats; default once."""
    times = np.ones(len(found.num_gt), dtype=np.int64) if times is None else times
    return curve(found, times=times).average_precision if found.num_gt @ times else float("nan")


def precision_recall(table: MatchTable, *, threshold: float) -> PrecisionRecall:
    """The curve behind the AP at one IoU threshold; recall is NaN without ground truth that counts."""
    return curve(outcomes(table, threshold=threshold), times=np.ones(len(table), dtype=np.int64))


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


def outcomes(table: MatchTable, *, threshold: float) -> Outcomes:
    """Match the predictions of every frame to its ground truth at IoU above ``threshold``.

    A ground-truth instance takes the first unused prediction; each further one costs a false positive with the lower of
    the two scores. A prediction that reaches no instance of any size is a false positive unless more than ``threshold``
    of its points are void or on small ground truth, which is the benefit of the doubt.
    """
    flat = _flatten(table)
    reaches = flat.pair_iou > threshold
    counts = flat.gt_sizes >= table.min_points
    matched = _match(flat, pairs=np.flatnonzero(reaches & counts[flat.pair_gt]))
    unmatched = _false_positives(flat, reaches=reaches, counts=counts, threshold=threshold)
    score = np.concatenate([matched.score, flat.scores[unmatched]])
    order = np.argsort(score, kind="stable")
    return Outcomes(
        score=score[order],
        is_true=np.concatenate([matched.is_true, np.zeros(len(unmatched), dtype=bool)])[order],
        frame=np.concatenate([flat.gt_frame[matched.gt], flat.pred_frame[unmatched]])[order],
        num_gt=np.bincount(flat.gt_frame[counts], minlength=len(table)),
    )


@dataclass(frozen=True, kw_only=True)
class _Flat:
    """All frames of a table end to end, without the predictions that are too small."""

    gt_sizes: np.ndarray
    gt_frame: np.ndarray
    scores: np.ndarray
    sizes: np.ndarray
    void: np.ndarray
    pred_frame: np.ndarray
    pair_gt: np.ndarray
    pair_pred: np.ndarray
    pair_points: np.ndarray
    pair_iou: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Matched:
    """True positives, and the false positives that a second prediction on the same ground truth costs."""

    score: np.ndarray
    is_true: np.ndarray
    gt: np.ndarray


def _flatten(table: MatchTable) -> _Flat:
    frames = table.frames
    num_gt = np.array([len(frame.gt_sizes) for frame in frames], dtype=np.int64)
    num_pred = np.array([len(frame.scores) for frame in frames], dtype=np.int64)
    num_pairs = np.array([len(frame.pair_gt) for frame in frames], dtype=np.int64)
    index = np.arange(len(frames))
    sizes = _joined([frame.sizes for frame in frames])
    pair_gt = _joined([frame.pair_gt for frame in frames]) + np.repeat(np.cumsum(num_gt) - num_gt, num_pairs)
    pair_pred = _joined([frame.pair_pred for frame in frames]) + np.repeat(np.cumsum(num_pred) - num_pred, num_pairs)
    kept = sizes >= table.min_points
    pairs = kept[pair_pred]
    return _Flat(
        gt_sizes=_joined([frame.gt_sizes for frame in frames]),
        gt_frame=np.repeat(index, num_gt),
        scores=_joined([frame.scores for frame in frames])[kept],
        sizes=sizes[kept],
        void=_joined([frame.void for frame in frames])[kept],
        pred_frame=np.repeat(index, num_pred)[kept],
        pair_gt=pair_gt[pairs],
        pair_pred=(np.cumsum(kept) - 1)[pair_pred[pairs]],
        pair_points=_joined([frame.pair_points for frame in frames])[pairs],
        pair_iou=_joined([frame.pair_iou for frame in frames])[pairs],
    )


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)


def _match(flat: _Flat, *, pairs: np.ndarray) -> _Matched:
    """Greedy, in the order of ground truth and, within it, of predictions."""
    used: set[int] = set()
    best: dict[int, float] = {}
    extra: list[tuple[int, float]] = []
    gts, preds = flat.pair_gt[pairs].tolist(), flat.pair_pred[pairs].tolist()
    for gt, pred, score in zip(gts, preds, flat.scores[flat.pair_pred[pairs]].tolist(), strict=True):
        if pred in used:
            continue
        if gt in best:  # the second prediction stays unused: at a low threshold it may yet match another instance
            extra.append((gt, min(best[gt], score)))
            best[gt] = max(best[gt], score)
        else:
            best[gt] = score
            used.add(pred)
    return _Matched(
        score=np.array([*best.values(), *(score for _, score in extra)], dtype=np.float64),
        is_true=np.arange(len(best) + len(extra)) < len(best),
        gt=np.array([*best, *(gt for gt, _ in extra)], dtype=np.int64),
    )


def _false_positives(flat: _Flat, *, reaches: np.ndarray, counts: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the predictions that reach no ground truth of any size and are not excused."""
    lost = np.ones(len(flat.scores), dtype=bool)
    lost[flat.pair_pred[reaches]] = False
    small = ~counts[flat.pair_gt]
    on_small = np.bincount(flat.pair_pred[small], weights=flat.pair_points[small], minlength=len(flat.scores))
    return np.flatnonzero(lost & ((flat.void + on_small) / flat.sizes <= threshold))


def _from_here_on(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Sum of ``values`` from each index of ``first`` to the end."""
    return np.asarray(np.cumsum(values[::-1])[::-1][first])
