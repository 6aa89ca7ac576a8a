"""ScanNet's class-agnostic AP written down step by step from the protocol (docs/reference/esam.md, Evaluation).

Slow as it is, it can be read beside the protocol. Nothing is shared with ditr.evaluation: every overlap is counted on
the points, every step is a loop, each threshold starts over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

PROTOCOL_THRESHOLDS = [float(t) for t in np.append(np.arange(0.5, 0.95, 0.05), 0.25)]
VOID = -1


@dataclass
class SlowFrame:
    masks: np.ndarray  # (K, N) bool
    scores: np.ndarray  # (K,)
    instance_of_point: np.ndarray  # (N,)
    looked_for: frozenset[int] | None = None  # ids of the ground truth that counts if it is large enough; None: all


@dataclass
class _Pred:
    score: float
    size: int
    void: int
    overlaps: list  # of (ground-truth index, intersection)


@dataclass
class _Gt:
    size: int
    counts: bool
    overlaps: list  # of (prediction index, intersection)


Associated = tuple[list[_Gt], list[_Pred]]


def slow_average_precision(frames: list[SlowFrame], *, thresholds: list[float], min_points: int) -> list[float]:
    associated = [slow_association(frame, min_points=min_points) for frame in frames]
    return [_average_precision(associated, threshold=threshold) for threshold in thresholds]


def slow_scores(frames: list[SlowFrame], *, min_points: int) -> tuple[float, float, float]:
    return slow_scores_of([slow_association(frame, min_points=min_points) for frame in frames])


def slow_scores_of(associated: list[Associated]) -> tuple[float, float, float]:
    values = [_average_precision(associated, threshold=t) for t in PROTOCOL_THRESHOLDS]
    return sum(values[:9]) / 9, values[0], values[9]


def slow_association(frame: SlowFrame, *, min_points: int) -> Associated:
    ids = [int(i) for i in np.unique(frame.instance_of_point) if i != VOID]
    gts = []
    for i in ids:
        size = int(np.count_nonzero(frame.instance_of_point == i))
        counts = size >= min_points and (frame.looked_for is None or i in frame.looked_for)
        gts.append(_Gt(size=size, counts=counts, overlaps=[]))
    preds: list[_Pred] = []
    for mask, score in zip(frame.masks, frame.scores, strict=True):
        size = int(np.count_nonzero(mask))
        if size < min_points:
            continue
        void = int(np.count_nonzero(np.logical_and(mask, frame.instance_of_point == VOID)))
        pred = _Pred(score=float(score), size=size, void=void, overlaps=[])
        for g, i in enumerate(ids):
            intersection = int(np.count_nonzero(np.logical_and(mask, frame.instance_of_point == i)))
            if intersection > 0:
                pred.overlaps.append((g, intersection))
                gts[g].overlaps.append((len(preds), intersection))
        preds.append(pred)
    return gts, preds


def _average_precision(associated: list[Associated], *, threshold: float) -> float:
    labels: list[int] = []
    confidences: list[float] = []
    hard_false_negatives = 0
    any_gt = any_pred = False
    for gts, preds in associated:
        any_pred = any_pred or len(preds) > 0
        used = [False] * len(preds)
        for gt in gts:
            if not gt.counts:
                continue
            any_gt = True
            held: float | None = None
            for p, intersection in gt.overlaps:
                if used[p]:
                    continue
                if intersection / (gt.size + preds[p].size - intersection) > threshold:
                    if held is None:
                        held = preds[p].score
                        used[p] = True
                    else:
                        labels.append(0)
                        confidences.append(min(held, preds[p].score))
                        held = max(held, preds[p].score)
            if held is None:
                hard_false_negatives += 1
            else:
                labels.append(1)
                confidences.append(held)
        for pred in preds:
            reaches = False
            for g, intersection in pred.overlaps:
                if intersection / (gts[g].size + pred.size - intersection) > threshold:
                    reaches = True
            if reaches:
                continue
            ignored = pred.void
            for g, intersection in pred.overlaps:
                if not gts[g].counts:
                    ignored += intersection
            if ignored / pred.size <= threshold:
                labels.append(0)
                confidences.append(pred.score)
    if not any_gt:
        return math.nan
    if not any_pred:
        return 0.0
    return _area(labels, confidences, hard_false_negatives)


def _area(labels: list[int], confidences: list[float], hard_false_negatives: int) -> float:
    precision, recall = [1.0], [0.0]
    total = sum(labels) + hard_false_negatives
    true = false = 0
    ranked = sorted(zip(confidences, labels, strict=True), reverse=True)
    for position, (confidence, label) in enumerate(ranked):
        true += label
        false += 1 - label
        if position + 1 == len(ranked) or ranked[position + 1][0] != confidence:
            precision.append(true / (true + false))
            recall.append(true / total)
    precision.reverse()
    recall.reverse()
    steps = np.convolve([recall[0], *recall, 0.0], [-0.5, 0.0, 0.5], "valid")
    return float(np.dot(precision, steps))
