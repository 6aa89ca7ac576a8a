from __future__ import annotations

import pytest
import torch

from ditr.model.padding import Padding

CPU = torch.device("cpu")


@pytest.mark.parametrize("counts", [(3, 1, 4), (2, 2), (5,)])
def test_rows_go_to_their_sample_and_back_with_their_gradient(counts: tuple[int, ...]) -> None:
    padding = Padding.of(counts, device=CPU)
    rows = torch.randn(sum(counts), 2, requires_grad=True)
    padded = padding.pad(rows)
    parts = torch.split(rows, list(counts))
    for index, part in enumerate(parts):
        assert torch.equal(padding.of_sample(index, padded), part)
        assert padding.valid[index].tolist() == [True] * len(part) + [False] * (max(counts) - len(part))
    assert padding.sample_of_row.tolist() == [index for index, count in enumerate(counts) for _ in range(count)]
    assert padding.starts.tolist() == [sum(counts[:index]) for index in range(len(counts))]
    assert torch.equal(padding.pack(padded), rows)

    weights = torch.randn(len(counts), max(counts), 2) * padding.valid.unsqueeze(2)
    ours, theirs = torch.autograd.grad((padded * weights).sum(), rows)[0], padding.pack(weights)
    assert torch.equal(ours, theirs)


def test_packing_gives_padding_no_gradient() -> None:
    padded = torch.randn(2, 3, 1, requires_grad=True)
    Padding.of((3, 1), device=CPU).pack(padded).sum().backward()
    assert padded.grad is not None
    assert padded.grad.flatten().tolist() == [1, 1, 1, 1, 0, 0]
