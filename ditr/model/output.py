"""What the model returns for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class HeadOutput:
    """One prediction head of one sample: Q queries, positions P = S superpoints or N points."""

    class_logits: Tensor
    """(Q, 2): thing, no object."""
    masks: Tensor
    """(Q, P) logits."""
    level: Literal["superpoint", "point"]


@dataclass(frozen=True, kw_only=True)
class SampleOutput:
    """All heads of one sample, in the order of the decoder; the last one is the prediction."""

    heads: tuple[HeadOutput, ...]
    semantic_logits: Tensor
    """(Q, 201), from the last head's queries."""
    query_superpoints: Tensor
    """(Q,) int64: the superpoint each query came from."""


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """A batch."""

    samples: tuple[SampleOutput, ...]
    balance_loss: Tensor | None
    """() the gate's balance term, weighted; None without BiFusion or in evaluation."""
    statistics: dict[str, Tensor]
    """Coverage and fusion numbers to log, each () and detached: valid_ratio, fusion_2d_ratio, fusion_3d_ratio, ..."""


def to_floats(numbers: Mapping[str, Tensor]) -> dict[str, float]:
    """The () numbers of one device, in one transfer: each waits for all that the device has to do."""
    if not numbers:
        return {}
    return dict(zip(numbers, torch.stack([*numbers.values()]).tolist(), strict=True))
