"""The predicted instances of one frame, as every part after post-processing sees them, and as pictures do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ditr.data.frame_view import FrameView, Prediction, view_of

if TYPE_CHECKING:
    from ditr.data.batch import Sample
    from ditr.data.samples import SampleSet

MATCH_IOU = 0.5
"""A prediction above it with a ground-truth instance is right about that one."""


@dataclass(frozen=True, kw_only=True)
class Instances:
    """K binary masks on N points, best score first."""

    masks: np.ndarray
    """(K, N) bool; masks may overlap."""
    scores: np.ndarray
    """(K,) float32, descending."""

    def __len__(self) -> int:
        return len(self.scores)


def predicted_view(samples: SampleSet, index: int, *, sample: Sample, found: Instances) -> FrameView:
    """Frame ``index`` with its predictions, against the targets of the sample, which are not all that is annotated."""
    truth = sample.targets.instance_of_point.numpy()
    predicted = prediction_of(found, instance_of_point=truth)
    return replace(view_of(samples.frames, index), instance_of_point=truth, prediction=predicted)


def prediction_of(found: Instances, *, instance_of_point: np.ndarray) -> Prediction:
    """Of ground truth (N,), -1 = void: which of the masks is a point's best, and which instance each is right about."""
    masks, truth = found.masks, instance_of_point == np.arange(instance_of_point.max(initial=-1) + 1)[:, None]
    partner = np.full(len(masks), -1)
    for index, mask in enumerate(masks):
        shared = np.count_nonzero(truth & mask, axis=1)
        iou = shared / np.maximum(np.count_nonzero(truth | mask, axis=1), 1)
        if len(iou) and iou.max() > MATCH_IOU:  # of at most one
            partner[index] = int(iou.argmax())
    nothing = np.full(masks.shape[1], -1)
    of_point = np.where(masks.any(axis=0), masks.argmax(axis=0), -1) if len(masks) else nothing
    return Prediction(of_point=of_point, scores=found.scores, partner=partner)
