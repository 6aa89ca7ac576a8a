"""Against torch's norm on the masked rows alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ditr.model.batch_norm import masked_batch_norm


@pytest.fixture
def norms() -> tuple[nn.BatchNorm1d, nn.BatchNorm1d]:
    """Two with the same weights, which are not those of the start."""
    both = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
    torch.manual_seed(0)
    nn.init.normal_(both[0].weight)
    nn.init.normal_(both[0].bias)
    both[1].load_state_dict(both[0].state_dict())
    return both


def rows(count: int) -> tuple[Tensor, Tensor]:
    """Far from zero mean, and what is not masked is far from the rest."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(500, dtype=torch.bool)
    mask[torch.randperm(500, generator=generator)[:count]] = True
    x = 3 * torch.randn(500, 6, generator=generator) + 20
    return torch.where(mask[:, None], x, 1e3), mask


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [2, 40, 500])
def test_numbers_and_gradients_and_running_statistics(
    norms: tuple[nn.BatchNorm1d, nn.BatchNorm1d], count: int, training: bool
) -> None:
    ours, theirs = (norm.train(training).double() for norm in norms)
    x, mask = rows(count)
    wanted = torch.randn(count, 6, dtype=torch.float64)
    found = []
    for norm in (ours, theirs):
        leaf = x.double().requires_grad_()
        for _ in range(2):  # running statistics move twice
            out = masked_batch_norm(leaf, mask, norm)[mask] if norm is ours else norm(leaf[mask])
        (out * wanted).sum().backward()
        found.append([out, leaf.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert found[0][1] is not None
    assert not found[0][1][~mask].any()


def test_no_row_changes_nothing(norms: tuple[nn.BatchNorm1d, nn.BatchNorm1d]) -> None:
    norm, untouched = norms
    x, mask = rows(0)
    leaf = x.requires_grad_()
    out = masked_batch_norm(leaf, mask, norm)
    assert out.isfinite().all()
    torch.where(mask[:, None], out, 0).sum().backward()
    assert leaf.grad is not None
    assert not leaf.grad.any()
    assert norm.weight.grad is not None
    assert not norm.weight.grad.any()
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), untouched.buffers(), strict=True))


def test_one_row_is_no_number_and_spoils_no_running_statistics(
    norms: tuple[nn.BatchNorm1d, nn.BatchNorm1d],
) -> None:
    norm, untouched = norms
    x, mask = rows(1)
    assert masked_batch_norm(x, mask, norm)[mask].isnan().all()
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), untouched.buffers(), strict=True))
    assert masked_batch_norm(x, mask, norm.eval())[mask].isfinite().all()
