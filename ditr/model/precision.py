"""In which numbers a model is computed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from ditr.spec.models import Precision

LOSS_SCALE = 1024.0
"""Of a loss whose gradient flows in float16, where small numbers become 0. A power of two: no digit is lost by it."""

_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def computing_in(precision: Precision, *, device: torch.device) -> AbstractContextManager[object]:
    """Torch's autocast for a model's forward pass; parameters, and in float32 everything, stay as they are."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_HALVES[precision])


def loss_scale(precision: Precision) -> float:
    return LOSS_SCALE if precision == "float16" else 1.0
