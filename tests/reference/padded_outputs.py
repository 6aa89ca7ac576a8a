"""A batch's output from mask logits that a test chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from ditr.data.batch import Batch
from ditr.model.masks import Level, Masks
from ditr.model.output import HeadOutput, Layout, ModelOutput
from ditr.model.padding import Padding
from tests.reference.loop_model import LoopOutput

CPU = torch.device("cpu")


def padded(
    samples: Sequence[LoopOutput],
    batch: Batch,
    *,
    fusion_losses: Mapping[str, Tensor] | None = None,
    statistics: dict[str, Tensor] | None = None,
) -> ModelOutput:
    """Of outputs for the samples of a batch, which may differ in queries, points and superpoints.

    Padding is not zero: it would show in any number that it has a part in.
    """
    layout = Layout(
        points=Padding.of([len(sample.xyz) for sample in batch], device=CPU),
        superpoints=Padding.of([sample.num_superpoints for sample in batch], device=CPU),
        queries=Padding.of([len(sample.semantic_logits) for sample in samples], device=CPU),
    )
    heads = []
    for same in zip(*(sample.heads for sample in samples), strict=True):
        masks = masks_of(_stack([head.masks for head in same]), level=same[0].level)
        heads.append(HeadOutput(class_logits=_stack([head.class_logits for head in same]), masks=masks))
    return ModelOutput(
        heads=tuple(heads),
        semantic_logits=_stack([sample.semantic_logits for sample in samples]),
        query_superpoints=torch.nn.utils.rnn.pad_sequence(
            [sample.query_superpoints for sample in samples], batch_first=True
        ),
        layout=layout,
        fusion_losses=fusion_losses or {},
        statistics={} if statistics is None else statistics,
    )


def masks_of(logits: Tensor, *, level: Level) -> Masks:
    """Masks of (B, R, P) logits, exactly: each position has a feature of its own."""
    features = torch.eye(logits.shape[2], dtype=logits.dtype).expand(len(logits), -1, -1)
    return Masks(rows=logits, offsets=torch.zeros_like(logits[:, :, :1]), features=features, level=level)


def _stack(tables: Sequence[Tensor]) -> Tensor:
    """(Q, P) of each sample -> (B, Q, P) of the largest, filled with 3."""
    height, width = (max(table.shape[dim] for table in tables) for dim in (0, 1))
    return torch.stack(
        [pad(table, (0, width - table.shape[1], 0, height - table.shape[0]), value=3.0) for table in tables]
    )
