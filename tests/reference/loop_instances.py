"""Post-processing one sample at a time: what that of a whole batch is held against."""

from __future__ import annotations

import torch
from torch import Tensor

from ditr.evaluation.instances import Instances
from ditr.spec.models import EvaluationSpec
from tests.reference.loop_model import LoopHead, LoopOutput


def loop_instances(output: LoopOutput, *, superpoints: Tensor, spec: EvaluationSpec) -> Instances:
    """Instances of one sample, on its N points; none is a valid answer.

    ``superpoints`` (N,) int64 brings a superpoint-level head to points. Every sort is stable, so that equal scores keep
    the order of the queries and the result does not depend on the device's sort. An output that is not a number is a
    DitrError: it would pass for a frame without instances.
    """
    head = output.heads[-1]
    class_scores = head.class_logits.float().softmax(dim=1)[:, 0]
    order = _descending(class_scores)[: spec.top_k]
    logits = _on_points(head, queries=order, superpoints=superpoints)
    scores = class_scores[order]
    if spec.object_normalization:
        scores = scores * _mean_probability_inside(logits)
    masks, scores = _matrix_nms(logits.sigmoid(), scores)
    binary = masks > spec.mask_threshold
    keep = (scores > spec.min_score) & (binary.sum(dim=1) > spec.min_points)
    return Instances(masks=binary[keep].cpu().numpy(), scores=scores[keep].cpu().numpy())


def _matrix_nms(masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Linear matrix NMS on soft masks (K, N) with scores (K,): decayed scores, descending, and their masks.

    Nothing is removed. A mask that is itself wholly suppressed (it equals a better one) suppresses nobody.
    """
    if not len(scores):
        return masks, scores
    order = _descending(scores)
    masks, scores = masks[order], scores[order]
    iou = _soft_iou(masks).triu(diagonal=1)
    compensation = iou.amax(dim=0)[:, None]
    decay = torch.where(compensation < 1, (1 - iou) / (1 - compensation), torch.inf)
    scores = scores * decay.amin(dim=0)
    order = _descending(scores)
    return masks[order], scores[order]


def _descending(scores: Tensor) -> Tensor:
    return torch.sort(scores, descending=True, stable=True).indices


def _on_points(head: LoopHead, *, queries: Tensor, superpoints: Tensor) -> Tensor:
    """Mask logits (K, N) of the chosen queries."""
    logits = head.masks[queries].float()
    logits = logits[:, superpoints] if head.level == "superpoint" else logits
    assert logits.shape[1] == len(superpoints), f"{logits.shape[1]} mask positions for {len(superpoints)} points"
    return logits


def _mean_probability_inside(logits: Tensor) -> Tensor:
    """(K,) mean mask probability over the points with a positive logit; 0 where there are none."""
    inside = logits > 0
    total = (logits.sigmoid() * inside).sum(dim=1)
    return total / (inside.sum(dim=1) + 1e-6)


def _soft_iou(masks: Tensor) -> Tensor:
    """(K, K) intersection over union of soft masks, within [0, 1] also where sums round; 0 between empty masks."""
    area = masks.sum(dim=1)
    intersection = masks @ masks.T
    union = area[:, None] + area[None, :] - intersection
    return torch.where(union > 0, intersection / union, 0.0).clamp(0, 1)
