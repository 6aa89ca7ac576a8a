"""The training loss (docs/reference/esam.md, Loss; NaN), without its NaNs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ditr.data.batch import Batch, Targets
from ditr.model.output import HeadOutput, ModelOutput, SampleOutput
from ditr.spec.esam import ESAM_AUX_DICE
from ditr.spec.models import LossSpec
from ditr.training.matching import Matches, match


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The loss of one batch."""

    total: Tensor
    """() what to differentiate: inst_loss + seg_loss, and balance_loss where the model has one."""
    terms: dict[str, Tensor]
    """Each () and detached: inst_loss, seg_loss, balance_loss, and the weighted parts of inst_loss: class_0, bce_0,
    dice_0, class_1, ..."""
    unmatched_samples: Tensor
    """() samples with things, of which some head matched no query: 0 in the mask terms, counted in their means."""
    unlabelled_samples: Tensor
    """() samples none of whose queries has a semantic class; they add 0 to seg_loss and count in its mean."""


@dataclass(frozen=True)
class Criterion:
    """Instance loss over all heads plus semantic loss of the last head's queries."""

    spec: LossSpec
    esam_compat: bool = False
    """The earlier heads' dice terms weigh 4 / B, with the B samples of this step, rather than ``spec.dice_aux``."""

    def __call__(self, output: ModelOutput, batch: Batch) -> Losses:
        """The loss of B samples; every mean over samples is explicit, so point counts may differ between them."""
        truths = [_truth(s.targets, o.query_superpoints) for s, o in zip(batch, output.samples, strict=True)]
        heads = [
            [_head_terms(head, truth, no_object=self.spec.no_object) for head in sample.heads]
            for sample, truth in zip(output.samples, truths, strict=True)
        ]
        parts = self._instance_parts(heads, valid=sum(truth.num_things > 0 for truth in truths))
        semantic = [_semantic_loss(o, truth) for o, truth in zip(output.samples, truths, strict=True)]
        sums = {
            "inst_loss": torch.stack(list(parts.values())).sum(),
            "seg_loss": self.spec.semantic * torch.stack(semantic).mean(),
        }
        if output.balance_loss is not None:
            sums["balance_loss"] = output.balance_loss
        terms = sums | parts
        return Losses(
            total=torch.stack(list(sums.values())).sum(),
            terms={name: term.detach() for name, term in terms.items()},
            unmatched_samples=output.samples[0].semantic_logits.new_tensor(
                sum(
                    truth.num_things > 0 and any(term.matched == 0 for term in of_sample)
                    for truth, of_sample in zip(truths, heads, strict=True)
                )
            ),
            unlabelled_samples=torch.stack([~truth.any_class for truth in truths]).sum(),
        )

    def _instance_parts(self, samples: list[list[_HeadTerms]], *, valid: int) -> dict[str, Tensor]:
        """The weighted terms of each head; mask terms are means over the ``valid`` samples, those with things."""
        parts: dict[str, Tensor] = {}
        last = len(samples[0]) - 1
        for index, head in enumerate(zip(*samples, strict=True)):
            dice_factor = self.spec.dice_final if index == last else self._dice_aux(batch_size=len(samples))
            bce = torch.stack([term.bce for term in head]).sum() / max(valid, 1)
            dice = torch.stack([term.dice for term in head]).sum() / max(valid, 1)
            parts[f"class_{index}"] = self.spec.classification * torch.stack([term.classes for term in head]).mean()
            parts[f"bce_{index}"] = self.spec.mask_bce * bce
            parts[f"dice_{index}"] = self.spec.mask_dice * dice_factor * dice
        return parts

    def _dice_aux(self, *, batch_size: int) -> float:
        return ESAM_AUX_DICE / batch_size if self.esam_compat else self.spec.dice_aux


@dataclass(frozen=True, kw_only=True)
class _Truth:
    """What the Q queries of one sample are compared with."""

    own: Tensor  # (Q, G) bool: the query's superpoint is inside the thing
    masks: dict[Literal["superpoint", "point"], Tensor]  # (G, S) and (G, N) float
    classes: Tensor  # (Q,) semantic class of the query's superpoint
    no_class: int  # the class that is ignored
    any_class: Tensor  # () bool

    @property
    def num_things(self) -> int:
        return self.own.shape[1]


@dataclass(frozen=True, kw_only=True)
class _HeadTerms:
    """Unweighted terms of one head of one sample, each (); mask terms are 0 without a match."""

    classes: Tensor
    bce: Tensor
    dice: Tensor
    matched: int


def _truth(targets: Targets, query_superpoints: Tensor) -> _Truth:
    things = torch.arange(len(targets.instance_masks), device=targets.instance_of_point.device)
    classes = targets.semantic_masks.index_select(1, query_superpoints).to(torch.uint8).argmax(dim=0)
    no_class = len(targets.semantic_masks) - 1
    return _Truth(
        own=targets.instance_masks.index_select(1, query_superpoints).T,
        masks={
            "superpoint": targets.instance_masks.float(),
            "point": (targets.instance_of_point == things[:, None]).float(),
        },
        classes=classes,
        no_class=no_class,
        any_class=(classes != no_class).any(),
    )


def _head_terms(head: HeadOutput, truth: _Truth, *, no_object: float) -> _HeadTerms:
    masks = truth.masks[head.level]
    matches = match(head, masks=masks, own=truth.own)
    # index_select, not indexing: its gradient is summed in a fixed order
    logits = head.masks.index_select(0, matches.queries)  # (M, P)
    wanted = masks.index_select(0, matches.things)
    bce = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
    return _HeadTerms(
        classes=_class_loss(head.class_logits, matches, no_object=no_object),
        # a sum over no match is 0 with a gradient of zeros: ESAM's gradient without its NaN
        bce=bce / max(wanted.numel(), 1),
        dice=_dice_losses(logits, wanted).sum() / max(len(matches), 1),
        matched=len(matches),
    )


def _class_loss(logits: Tensor, matches: Matches, *, no_object: float) -> Tensor:
    """Weighted mean cross entropy of Q queries: class 0 where matched, else 1, "no object"."""
    wanted = torch.ones(len(logits), dtype=torch.int64, device=logits.device).index_fill(0, matches.queries, 0)
    weight = logits.new_tensor([1.0, no_object])
    total = functional.cross_entropy(logits, wanted, weight=weight, reduction="sum")
    weights = weight.index_select(0, wanted).sum()
    # with no_object 0 and no match, all weights are 0, and so is the total
    return total / weights.clamp(min=torch.finfo(weights.dtype).tiny)


def _dice_losses(logits: Tensor, wanted: Tensor) -> Tensor:
    """(M,) 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) of M pairs."""
    p = logits.sigmoid()
    return 1 - (2 * (p * wanted).sum(dim=1) + 1) / (p.sum(dim=1) + wanted.sum(dim=1) + 1)


def _semantic_loss(output: SampleOutput, truth: _Truth) -> Tensor:
    """() mean cross entropy over the queries with a class; 0 if none has one."""
    logits = output.semantic_logits[:, : truth.no_class]
    total = functional.cross_entropy(logits, truth.classes, ignore_index=truth.no_class, reduction="sum")
    labelled = (truth.classes != truth.no_class).sum()
    return total / labelled.clamp(min=1)
