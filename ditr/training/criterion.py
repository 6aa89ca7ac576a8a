"""The training loss (docs/reference/esam.md, Loss; NaN), without its NaNs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ditr.data.batch import Batch
from ditr.data.classes import IGNORED
from ditr.errors import Code, DitrError
from ditr.model.full_precision import at_least_float32
from ditr.model.masks import joined
from ditr.model.output import HeadOutput, ModelOutput
from ditr.ranks import ALONE, Ranks
from ditr.spec.esam import ESAM_AUX_DICE
from ditr.spec.models import LossSpec
from ditr.training.mask_terms import mask_terms
from ditr.training.matching import match, own_cost
from ditr.training.truth import Things, Truth, truth_of


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The loss of one rank's part of a batch: of the parts of all ranks together, it sums to that of the batch."""

    total: Tensor
    """() what to differentiate: inst_loss + seg_loss, and what the fusion adds, such as balance_loss."""
    terms: dict[str, Tensor]
    """Each () and detached: inst_loss, seg_loss, those of the fusion, and the weighted parts of inst_loss: class_0,
    bce_0, dice_0, class_1, ..."""
    unmatched_samples: Tensor
    """() samples with things, of which some head matched no query: 0 in the mask terms, counted in their means."""
    unlabelled_samples: Tensor
    """() samples none of whose queries has a semantic class; they add 0 to seg_loss and count in its mean."""
    share: float = 1.0
    """Of the batch's samples that are in this part."""


@dataclass(frozen=True)
class Criterion:
    """Instance loss over all heads plus semantic loss of the last head's queries.

    All samples are one computation, of sizes that the host knows: nothing waits for the device to say what matched.
    """

    spec: LossSpec
    esam_compat: bool = False
    """The earlier heads' dice terms weigh 4 / B, with the B samples of this step, rather than ``spec.dice_aux``."""
    ranks: Ranks = ALONE

    def __call__(self, output: ModelOutput, batch: Batch) -> Losses:
        """The loss of B samples, of which some may be on other ranks; every mean over samples is explicit, so point
        counts may differ between them. A loss of the fusion's is of the whole batch already: a part has its share."""
        truth = truth_of(batch, output)
        samples, valid = self.ranks.sums([len(batch), sum(count > 0 for count in truth.num_things)])
        heads = _head_terms(output.heads, truth, no_object=self.spec.no_object)
        instances = self._instance_parts(heads, samples=samples, valid=valid)
        semantic, labelled = _semantic_loss(output.semantic_logits, truth.query_classes)
        sums = {"inst_loss": instances.sum(), "seg_loss": self.spec.semantic * (semantic.sum() / samples)}
        parts = {
            f"{name}_{index}": part
            for index, of_head in enumerate(instances.unbind())
            for name, part in zip(("class", "bce", "dice"), of_head.unbind(), strict=True)
        }
        if clash := output.fusion_losses.keys() & (sums | parts).keys():
            raise _called_alike(min(clash))
        share = len(batch) / samples
        sums |= {name: share * loss for name, loss in output.fusion_losses.items()}
        return Losses(
            total=torch.stack(list(sums.values())).sum(),
            terms={name: term.detach() for name, term in (sums | parts).items()},
            unmatched_samples=(truth.has_things & (heads.matched == 0).any(dim=0)).sum(),
            unlabelled_samples=(labelled == 0).sum(),
            share=share,
        )

    def _instance_parts(self, heads: _HeadTerms, *, samples: float, valid: float) -> Tensor:
        """(T, 3) weighted class, bce and dice terms; mask terms are means over the ``valid`` samples with things."""
        bce, dice = (of_masks.sum(dim=1) / max(valid, 1) for of_masks in (heads.bce, heads.dice))
        dice_aux = ESAM_AUX_DICE / samples if self.esam_compat else self.spec.dice_aux
        dice = torch.cat((dice_aux * dice[:-1], self.spec.dice_final * dice[-1:]))
        classes = heads.classes.sum(dim=1) / samples
        weighted = (self.spec.classification * classes, self.spec.mask_bce * bce, self.spec.mask_dice * dice)
        return torch.stack(weighted, dim=1)


@dataclass(frozen=True, kw_only=True)
class _HeadTerms:
    """Unweighted terms of T heads for B samples, each (T, B); mask terms are 0 without a match."""

    classes: Tensor
    bce: Tensor
    dice: Tensor
    matched: Tensor
    """How many things have a query."""


def _head_terms(heads: Sequence[HeadOutput], truth: Truth, *, no_object: float) -> _HeadTerms:
    """Heads of one level are one computation."""
    of_head: dict[int, Tensor] = {}
    for level in dict.fromkeys(head.masks.level for head in heads):
        numbers = [number for number, head in enumerate(heads) if head.masks.level == level]
        terms = _terms([heads[number] for number in numbers], truth, things=truth.things[level], no_object=no_object)
        of_head |= zip(numbers, terms.unbind(dim=1), strict=True)
    classes, bce, dice, matched = torch.stack([of_head[number] for number in range(len(heads))]).unbind(dim=2)
    return _HeadTerms(classes=classes, bce=bce, dice=dice, matched=matched)


def _terms(heads: Sequence[HeadOutput], truth: Truth, *, things: Things, no_object: float) -> Tensor:
    """(B, H, 4) classes, bce, dice and matched of the H heads of one level."""
    class_logits = at_least_float32(torch.stack([head.class_logits for head in heads], dim=1))  # (B, H, Q, 2)
    masks = joined([head.masks for head in heads])  # of H * Q rows
    query_owners = truth.query_owners.unsqueeze(1).expand(class_logits.shape[:3])  # (B, H, Q)
    cost = own_cost(class_logits.flatten(1, 2), masks, query_owners=query_owners.flatten(1, 2), things=things)
    answers = match(cost.view_as(query_owners), query_owners=query_owners, things=things.masks.shape[1])

    pairs = answers.any(dim=3)  # (B, H, G)
    logits = torch.unflatten(masks.chosen(answers).logits(), 1, pairs.shape[1:])  # (B, H, G, P)
    inside, everywhere = things.masks.unsqueeze(1), things.everywhere.unsqueeze(1)
    losses = mask_terms(logits, inside=inside, everywhere=everywhere)
    matched = pairs.sum(dim=2)  # (B, H)
    # a sum over no match is 0 with a gradient of zeros: ESAM's gradient without its NaN
    bce, dice = ((loss * pairs).sum(dim=2) / matched.clamp(min=1) for loss in losses)
    classes = _class_loss(class_logits, answers.any(dim=2), truth.queries.unsqueeze(1), no_object=no_object)
    return torch.stack((classes, bce, dice, matched), dim=2)


def _class_loss(logits: Tensor, answering: Tensor, real: Tensor, *, no_object: float) -> Tensor:
    """(B, H) weighted mean cross entropy of (B, H, Q, 2): class 0 where the query answers, else 1, "no object"."""
    thing, nothing = logits.log_softmax(dim=3).unbind(dim=3)
    weights = torch.where(answering, logits.new_ones(()), no_object) * real
    total = (weights * -torch.where(answering, thing, nothing)).sum(dim=2)
    # with no_object 0 and no match, all weights are 0, and so is the total
    return total / weights.sum(dim=2).clamp(min=torch.finfo(weights.dtype).tiny)


def _called_alike(name: str) -> DitrError:
    what = f"a fusion part calls a loss {name}, and a loss of the model is called so"
    return DitrError(what, code=Code.RUN, where="fusion", fix="call it otherwise in `features.losses`")


def _semantic_loss(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) mean cross entropy over the queries with a class, 0 if none has one; (B,) how many have."""
    losses = functional.cross_entropy(
        at_least_float32(logits[..., :IGNORED]).flatten(0, 1), classes.flatten(), ignore_index=IGNORED, reduction="none"
    )
    labelled = (classes != IGNORED).sum(dim=1)
    return losses.view_as(classes).sum(dim=1) / labelled.clamp(min=1), labelled
