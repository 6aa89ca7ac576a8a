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

    @property
    def positions(self) -> Tensor:
        """(B, 1, 1) how many there are."""
        return self.everywhere.sum(dim=2, keepdim=True)


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
    own: Tensor
    """(B, Q, G) bool: the query's superpoint is inside the thing; false at padding."""
    classes: Tensor
    """(B, Q) int64 class of the query's superpoint; ``IGNORED`` where it has none, and at padding."""


def truth_of(batch: Batch, output: ModelOutput) -> Truth:
    """Of the samples that the output is of."""
    targets, layout = [sample.targets for sample in batch], output.layout
    dtype = torch.promote_types(output.semantic_logits.dtype, torch.float32)
    num_things = tuple(len(truth.ids) for truth in targets)
    number = torch.arange(max(1, *num_things), device=output.query_superpoints.device).unsqueeze(1)  # (G, 1)

    def things(owners: list[Tensor], positions: Padding) -> Things:
        valid = positions.valid.unsqueeze(1)
        inside = (positions.pad(torch.cat(owners)).unsqueeze(1) == number) & valid
        return Things(masks=inside.to(dtype), everywhere=valid.to(dtype))

    owner, kind = (
        layout.superpoints.pad(torch.cat(values)).gather(1, output.query_superpoints)  # (B, Q)
        for values in (
            [truth.instance_of_superpoint for truth in targets],
            [truth.class_of_superpoint for truth in targets],
        )
    )
    real = layout.queries.valid
    return Truth(
        things={
            "superpoint": things([truth.instance_of_superpoint for truth in targets], layout.superpoints),
            "point": things([truth.instance_of_point for truth in targets], layout.points),
        },
        num_things=num_things,
        has_things=sent(torch.tensor(num_things), device=number.device) > 0,
        queries=real,
        own=(owner.unsqueeze(2) == number.squeeze(1)) & real.unsqueeze(2),
        classes=kind.masked_fill(~real, IGNORED),
    )
