"""From the last head's masks to instances (docs/reference/esam.md, Instances)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ditr.data.batch import Batch
from ditr.errors import Code, DitrError
from ditr.evaluation.instances import Instances
from ditr.model.full_precision import at_least_float32
from ditr.model.masks import Masks
from ditr.model.output import Layout, ModelOutput
from ditr.spec.models import EvaluationSpec


class OutputNoNumber(DitrError):
    """What a model says of frames, ``where``, is not a number: they would pass for frames without instances."""


@torch.no_grad()
def instances(output: ModelOutput, batch: Batch, *, spec: EvaluationSpec) -> list[Instances]:
    """Instances of each sample, on its points; none is a valid answer.

    Every sort is stable, so that equal scores keep the order of the queries and the result does not depend on the
    device's sort. The host waits for the device once, at the end. Raises OutputNoNumber with the frames of which
    that is so.
    """
    masks, scores = _found(output, batch, spec=spec)
    on_host = masks.to("cpu", non_blocking=True), scores.cpu()  # the second waits for both
    return _of_samples(*(tensor.numpy() for tensor in on_host), batch=batch)


def _found(output: ModelOutput, batch: Batch, *, spec: EvaluationSpec) -> tuple[Tensor, Tensor]:
    """(B, K, N) bool masks and (B, K) scores: -inf where there is no instance, NaN where the output is not a number."""
    head, layout = output.heads[-1], output.layout
    # Padding comes last, and as a mask that is empty it neither counts nor suppresses.
    scores = at_least_float32(head.class_logits).softmax(dim=2)[..., 0].masked_fill(~layout.queries.valid, -1)
    order = _descending(scores)[:, : spec.top_k]
    scores = scores.gather(1, order)  # (B, K)
    logits = _on_points(head.masks, order, batch, layout)  # (B, K, N)
    real = layout.points.valid.unsqueeze(1) & (scores >= 0).unsqueeze(2)
    soft = logits.sigmoid() * real
    if spec.object_normalization:
        scores = scores * _mean_probability_inside(logits, soft)
    soft, scores = matrix_nms(soft, scores)
    binary = soft > spec.mask_threshold
    kept = (scores > spec.min_score) & (binary.sum(dim=2) > spec.min_points)
    return binary, scores.masked_fill(~kept, -torch.inf).masked_fill(_not_numbers(output).unsqueeze(1), torch.nan)


def matrix_nms(masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Linear matrix NMS on soft masks (B, K, N) with scores (B, K): decayed scores, descending, and their masks.

    Nothing is removed. A mask that is itself wholly suppressed (it equals a better one) suppresses nobody.
    """
    masks, scores = _by_score(masks, scores)
    iou = _soft_iou(masks).triu(diagonal=1)
    compensation = iou.amax(dim=1).unsqueeze(2)
    decay = torch.where(compensation < 1, (1 - iou) / (1 - compensation), torch.inf)
    return _by_score(masks, scores * decay.amin(dim=1))


def _by_score(masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    order = _descending(scores)
    return masks.take_along_dim(order.unsqueeze(2), dim=1), scores.gather(1, order)


def _descending(scores: Tensor) -> Tensor:
    return torch.sort(scores, descending=True, stable=True).indices


def _on_points(masks: Masks, queries: Tensor, batch: Batch, layout: Layout) -> Tensor:
    """(B, K, N) mask logits of the chosen (B, K) queries."""
    logits, positions = masks.picked(queries).logits(), layout.positions(masks.level).length
    assert logits.shape[2] == positions, f"{logits.shape[2]} mask positions for {positions} {masks.level}s"
    if masks.level == "point":
        return logits
    superpoints = layout.points.pad(torch.cat([sample.superpoints for sample in batch]))  # (B, N)
    return logits.take_along_dim(superpoints.unsqueeze(1), dim=2)


def _mean_probability_inside(logits: Tensor, soft: Tensor) -> Tensor:
    """(B, K) mean mask probability over the points with a positive logit; 0 where there are none."""
    inside = (logits > 0) & (soft > 0)
    return (soft * inside).sum(dim=2) / (inside.sum(dim=2) + 1e-6)


def _soft_iou(masks: Tensor) -> Tensor:
    """(B, K, K) intersection over union of soft masks, within [0, 1] also where sums round; 0 between empty masks."""
    area = masks.sum(dim=2)
    intersection = masks @ masks.mT
    union = area.unsqueeze(2) + area.unsqueeze(1) - intersection
    return torch.where(union > 0, intersection / union, 0.0).clamp(0, 1)


def _not_numbers(output: ModelOutput) -> Tensor:
    """(B,) bool: whether a class probability is NaN, or what masks are products of, of which inf makes NaN as well."""
    head = output.heads[-1]
    factors = (head.masks.rows, head.masks.offsets, head.masks.features)
    wrong = [at_least_float32(head.class_logits).softmax(dim=2).isnan(), *(~factor.isfinite() for factor in factors)]
    return torch.stack([part.flatten(1).any(dim=1) for part in wrong]).any(dim=0)


def _of_samples(masks: np.ndarray, scores: np.ndarray, *, batch: Batch) -> list[Instances]:
    """Of what ``_found`` gives."""
    wrong = [sample.frame_id for sample, row in zip(batch, scores, strict=True) if np.isnan(row).any()]
    if wrong:
        raise OutputNoNumber(
            "the model's output is not a number, so its AP would say nothing",
            code=Code.RUN,
            where=", ".join(wrong),
            fix="evaluate weights whose training did not diverge: lower schedule.learning_rate and train anew",
        )
    kept = scores > -np.inf
    return [
        Instances(masks=masks[index, kept[index], : len(sample.xyz)], scores=scores[index, kept[index]])
        for index, sample in enumerate(batch)
    ]
