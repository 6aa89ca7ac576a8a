"""One update of a model. Nothing in it waits for the device: what there is to say about it stays there as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from ditr.data.batch import Batch
from ditr.model.output import ModelOutput
from ditr.model.precision import computing_in, loss_scale
from ditr.model.prefetch import Ready
from ditr.ranks import ALONE, Ranks
from ditr.spec.models import Precision
from ditr.training.criterion import Criterion


@dataclass(frozen=True, kw_only=True)
class StepNumbers:
    """What there is to log about a step, of all ranks; tensors are () each and detached."""

    loss: Tensor
    terms: Mapping[str, Tensor]
    """Of the loss."""
    grad_norm: Tensor
    """Before it was clipped."""
    others: Mapping[str, Tensor]
    known: Mapping[str, float]
    """What needs no device."""


def train_step(
    model: nn.Module,
    ready: Ready,
    *,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    clip: float,
    precision: Precision,
    ranks: Ranks = ALONE,
) -> StepNumbers:
    """Updates the model in place, in the order in which the device comes to it; every rank alike, of its part of the
    batch.

    The forward pass is computed in ``precision``, losses and the update in float32; float16 scales the loss by a
    constant. Whether the numbers are finite is for who fetches them to see: no update is left out.
    """
    batch, scale = ready.batch, loss_scale(precision)
    with computing_in(precision, device=batch.samples[0].xyz.device):
        output: ModelOutput = model(*ready.arguments)
    losses = criterion(output, batch)
    optimizer.zero_grad(set_to_none=True)
    (losses.total * scale).backward()  # type: ignore[no-untyped-call]
    if scale != 1:
        torch._foreach_div_([weight.grad for weight in model.parameters() if weight.grad is not None], scale)
    ranks.add_up(model.parameters())
    norm = clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    counts = {"unmatched_samples": losses.unmatched_samples, "unlabelled_samples": losses.unlabelled_samples}
    sums, means = {"loss": losses.total.detach(), **losses.terms, **counts}, output.statistics
    stacked = [_stacked(sums), *([losses.share * _stacked(means)] if means else [])]
    of_all = dict(zip((*sums, *means), ranks.total(torch.cat(stacked)).unbind(), strict=True))
    return StepNumbers(
        loss=of_all["loss"],
        terms={name: of_all[name] for name in losses.terms},
        grad_norm=norm.detach(),
        others={name: of_all[name] for name in (*means, *counts)},
        known=_known(batch, output, ranks=ranks),
    )


def _stacked(numbers: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([value.float() for value in numbers.values()])


def _known(batch: Batch, output: ModelOutput, *, ranks: Ranks) -> dict[str, float]:
    samples, points, queries, depth_ok, boundary_ok = ranks.sums(
        [
            len(batch),
            sum(len(sample.xyz) for sample in batch),
            sum(output.layout.queries.counts),
            sum(sample.depth_ok_ratio for sample in batch),
            sum(sample.boundary_ok_ratio for sample in batch),
        ]
    )
    return {
        "points": points,
        "queries": queries,
        "depth_ok_ratio": depth_ok / samples,
        "boundary_ok_ratio": boundary_ok / samples,
    }
