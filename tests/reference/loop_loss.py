"""Matching and loss one sample and one head at a time: what those of a whole batch are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ditr.data.batch import Batch, Targets
from ditr.data.classes import IGNORED
from ditr.model.masks import Level
from ditr.spec.esam import ESAM_AUX_DICE
from ditr.spec.models import LossSpec
from ditr.training.criterion import Losses
from ditr.training.matching import BCE_COST, CLASS_COST, DICE_COST, OUTSIDE
from tests.reference.loop_model import LoopHead, LoopOutput


@dataclass(frozen=True)
class LoopCriterion:
    """Instance loss over all heads plus semantic loss of the last head's queries."""

    spec: LossSpec
    esam_compat: bool = False
    """The earlier heads' dice terms weigh 4 / B, with the B samples of this step, rather than ``spec.dice_aux``."""

    def __call__(self, outputs: Sequence[LoopOutput], batch: Batch, *, balance_loss: Tensor | None = None) -> Losses:
        """The loss of B samples; every mean over samples is explicit, so point counts may differ between them."""
        truths = [_truth(s.targets, o) for s, o in zip(batch, outputs, strict=True)]
        heads = [
            [_head_terms(head, truth, no_object=self.spec.no_object) for head in sample.heads]
            for sample, truth in zip(outputs, truths, strict=True)
        ]
        parts = self._instance_parts(heads, valid=sum(truth.num_things > 0 for truth in truths))
        semantic = [_semantic_loss(o, truth) for o, truth in zip(outputs, truths, strict=True)]
        sums = {
            "inst_loss": torch.stack(list(parts.values())).sum(),
            "seg_loss": self.spec.semantic * torch.stack(semantic).mean(),
        }
        if balance_loss is not None:
            sums["balance_loss"] = balance_loss
        terms = sums | parts
        return Losses(
            total=torch.stack(list(sums.values())).sum(),
            terms={name: term.detach() for name, term in terms.items()},
            unmatched_samples=torch.tensor(
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
    masks: dict[Level, Tensor]  # (G, S) and (G, N) float
    classes: Tensor  # (Q,) semantic class of the query's superpoint
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


def _truth(targets: Targets, output: LoopOutput) -> _Truth:
    things, dtype = torch.arange(len(targets.ids))[:, None], output.semantic_logits.dtype
    of_superpoints = targets.instance_of_superpoint == things
    classes = targets.class_of_superpoint[output.query_superpoints]
    return _Truth(
        own=of_superpoints[:, output.query_superpoints].T,
        masks={"superpoint": of_superpoints.to(dtype), "point": (targets.instance_of_point == things).to(dtype)},
        classes=classes,
        any_class=(classes != IGNORED).any(),
    )


def _head_terms(head: LoopHead, truth: _Truth, *, no_object: float) -> _HeadTerms:
    masks = truth.masks[head.level]
    matches = loop_match(head, masks=masks, own=truth.own)
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


def _semantic_loss(output: LoopOutput, truth: _Truth) -> Tensor:
    """() mean cross entropy over the queries with a class; 0 if none has one."""
    logits = output.semantic_logits[:, :IGNORED]
    total = functional.cross_entropy(logits, truth.classes, ignore_index=IGNORED, reduction="sum")
    labelled = (truth.classes != IGNORED).sum()
    return total / labelled.clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Matches:
    """M pairs; a thing is in at most one of them."""

    queries: Tensor
    """(M,) int64 rows of the head."""
    things: Tensor
    """(M,) int64, 0..G-1."""

    def __len__(self) -> int:
        return len(self.queries)


@torch.no_grad()
def loop_match(head: LoopHead, *, masks: Tensor, own: Tensor) -> Matches:
    """Give each thing the cheapest query among those that came from its own superpoints.

    masks: (G, P) float, the things at the head's positions; own: (Q, G) bool, the query's superpoint is inside the
    thing. A pair matches iff it costs strictly less than the second-smallest cost of the thing. So a thing without a
    query of its own gets none, one whose two cheapest queries tie exactly gets none (as in ESAM), and a lone query
    counts as cheapest. Superpoints belong to at most one thing, hence a query answers for at most one.
    """
    cost = loop_pair_cost(head, masks=masks).masked_fill(~own, OUTSIDE)  # (Q, G)
    beyond = cost.new_full((1, cost.shape[1]), OUTSIDE)  # stands in for the second query where there is only one
    second = torch.cat((cost, beyond)).topk(2, dim=0, largest=False).values[1]  # (G,)
    queries, things = torch.nonzero(cost < second, as_tuple=True)
    return Matches(queries=queries, things=things)


def loop_pair_cost(head: LoopHead, *, masks: Tensor) -> Tensor:
    """(Q, G) cost of each query for each thing, over the head's P positions; masks (G, P) float."""
    thing = head.class_logits.softmax(dim=-1)[:, :1]  # (Q, 1)
    return -CLASS_COST * thing + BCE_COST * _bce(head.masks, masks) + DICE_COST * _dice(head.masks, masks)


def _bce(logits: Tensor, masks: Tensor) -> Tensor:
    """(Q, G) mean binary cross entropy, as softplus(x) - x t, which needs no (Q, G, P) tensor."""
    return functional.softplus(logits).mean(dim=1, keepdim=True) - logits @ masks.T / logits.shape[1]


def _dice(logits: Tensor, masks: Tensor) -> Tensor:
    """(Q, G) 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)."""
    p = logits.sigmoid()
    return 1 - (2 * p @ masks.T + 1) / (p.sum(dim=1, keepdim=True) + masks.sum(dim=1) + 1)
