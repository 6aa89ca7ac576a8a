from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ditr.training.mask_terms import mask_terms


def test_values_are_torch_s_and_the_formula_and_the_gradient_is_autograd_s() -> None:
    """Samples of 7 and 4 positions, the second with 3 of padding; logits that saturate too."""
    rng = torch.Generator().manual_seed(0)
    logits = 20 * torch.randn(2, 5, 7, generator=rng, dtype=torch.float64)
    everywhere = (torch.arange(7) < torch.tensor([[[7]], [[4]]])).double()
    inside = (torch.rand(2, 5, 7, generator=rng) < 0.4).double() * everywhere
    logits.requires_grad_()

    def plain() -> tuple[Tensor, Tensor]:
        bces, dices = [], []
        for sample, count in enumerate((7, 4)):
            x, t = logits[sample, :, :count], inside[sample, :, :count]
            bces.append(binary_cross_entropy_with_logits(x, t, reduction="none").mean(dim=1))
            p = x.sigmoid()
            dices.append(1 - (2 * (p * t).sum(dim=1) + 1) / (p.sum(dim=1) + t.sum(dim=1) + 1))
        return torch.stack(bces), torch.stack(dices)

    weights = torch.randn(2, 2, 5, generator=rng, dtype=torch.float64)
    found, wanted = mask_terms(logits, inside=inside, everywhere=everywhere), plain()
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad((weights * torch.stack(terms)).sum(), logits)[0] for terms in (found, wanted))
    torch.testing.assert_close(ours, theirs)
    assert (ours[1, :, 4:] == 0).all()
