"""What the model returns for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ditr.model.masks import Level, Masks
from ditr.model.padding import Padding


@dataclass(frozen=True, kw_only=True)
class HeadOutput:
    """One prediction head for B samples, queries padded to Q, positions P = superpoints or points padded likewise."""

    class_logits: Tensor
    """(B, Q, 2): thing, no object."""
    masks: Masks
    """Of the Q queries."""


@dataclass(frozen=True)
class Layout:
    """How many of what there is in each of B samples, and so what of a padded tensor is padding."""

    points: Padding
    superpoints: Padding
    queries: Padding

    def positions(self, level: Level) -> Padding:
        """Of the masks of a level."""
        return self.points if level == "point" else self.superpoints


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """A batch of B samples."""

    heads: tuple[HeadOutput, ...]
    """In the order of the decoder; the last one is the prediction."""
    semantic_logits: Tensor
    """(B, Q, 201), from the last head's queries."""
    query_superpoints: Tensor
    """(B, Q) int64: the superpoint of the sample that each query came from."""
    layout: Layout
    fusion_losses: Mapping[str, Tensor]
    """() each, weighted: what parts of the fusion add to the loss, such as balance_loss; none in evaluation."""
    statistics: dict[str, Tensor]
    """Coverage and fusion numbers to log, detached: valid_ratio, fusion_2d_ratio, fusion_3d_ratio, ...; each () of the
    batch in training, and (B,) of each sample in evaluation."""

    @property
    def samples(self) -> tuple[SampleOutput, ...]:
        """Each sample by itself, without padding."""
        return tuple(SampleOutput(batch=self, index=index) for index in range(len(self.semantic_logits)))


@dataclass(frozen=True, kw_only=True)
class SampleOutput:
    """The part of an output that is of one sample, to look at: masks are computed whenever they are asked for."""

    batch: ModelOutput
    index: int

    @property
    def heads(self) -> tuple[SampleHead, ...]:
        return tuple(SampleHead(sample=self, head=head) for head in self.batch.heads)

    @property
    def semantic_logits(self) -> Tensor:
        """(Q, 201)"""
        return self.batch.layout.queries.of_sample(self.index, self.batch.semantic_logits)

    @property
    def query_superpoints(self) -> Tensor:
        """(Q,) int64"""
        return self.batch.layout.queries.of_sample(self.index, self.batch.query_superpoints)


@dataclass(frozen=True, kw_only=True)
class SampleHead:
    """One head of one sample: Q queries, positions P = S superpoints or N points."""

    sample: SampleOutput
    head: HeadOutput

    @property
    def level(self) -> Level:
        return self.head.masks.level

    @property
    def class_logits(self) -> Tensor:
        """(Q, 2)"""
        return self.sample.batch.layout.queries.of_sample(self.sample.index, self.head.class_logits)

    @property
    def masks(self) -> Tensor:
        """(Q, P) logits."""
        index, layout = self.sample.index, self.sample.batch.layout
        return self.head.masks.of_sample(
            index, rows=layout.queries.counts[index], positions=layout.positions(self.level).counts[index]
        )


def to_floats(numbers: Mapping[str, Tensor]) -> dict[str, float]:
    """The () numbers of one device, in one transfer: each waits for all that the device has to do."""
    if not numbers:
        return {}
    return dict(zip(numbers, torch.stack([*numbers.values()]).tolist(), strict=True))
