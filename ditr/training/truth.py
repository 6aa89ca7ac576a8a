"""The ground truth of a batch, padded as the model's output is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ditr.data.batch import Batch
from ditr.data.classes import IGNORED
from ditr.model.masks import Level
from ditr.model.output import ModelOutput
from ditr.model.padding import Padding, sent


@dataclass(frozen=True, kw_only=True)
class Things:
    """The G things of each of B samples, at P positions."""

    masks: Tensor
    """(B, G, P) float: 1 inside, 0 outside and at padding."""
    everywhere: Tensor
    """(B, 1, P) float: 1, and 0 at padding."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the Q queries of B samples are compared with; G is the most things that a sample has, at least 1."""

    things: Mapping[Level, Things]
    num_things: tuple[int, ...]
    """Of each sample."""
    has_things: Tensor
    """(B,) bool: some."""
    queries: Tensor
    """(B, Q) bool: no padding."""
    query_owners: Tensor
    """(B, Q) int64: the thing that the query's superpoint belongs to; -1 where it is none, and at padding."""
    query_classes: Tensor
    """(B, Q) int64: the class of the query's superpoint; ``IGNORED`` where it has none, and at padding."""


def truth_of(batch: Batch, output: ModelOutput) -> Truth:
    """Of the samples that the output is of."""
    targets, layout = [sample.targets for sample in batch], output.layout
    dtype = torch.promote_types(output.semantic_logits.dtype, torch.float32)
    num_things = tuple(len(truth.ids) for truth in targets)
    number = torch.arange(max(1, *num_things), device=output.semantic_logits.device).unsqueeze(1)  # (G, 1)

    def things(owners: Tensor, positions: Padding) -> Things:
        valid = positions.valid.unsqueeze(1)
        return Things(masks=((owners.unsqueeze(1) == number) & valid).to(dtype), everywhere=valid.to(dtype))

    of_points = layout.points.pad(torch.cat([truth.instance_of_point for truth in targets]))
    of_superpoints = layout.superpoints.pad(torch.cat([truth.instance_of_superpoint for truth in targets]))
    classes = layout.superpoints.pad(torch.cat([truth.class_of_superpoint for truth in targets]))
    queries = layout.queries.valid
    return Truth(
        things={"superpoint": things(of_superpoints, layout.superpoints), "point": things(of_points, layout.points)},
        num_things=num_things,
        has_things=sent(torch.tensor(num_things), device=queries.device) > 0,
        queries=queries,
        query_owners=of_superpoints.gather(1, output.query_superpoints).masked_fill(~queries, -1),
        query_classes=classes.gather(1, output.query_superpoints).masked_fill(~queries, IGNORED),
    )
