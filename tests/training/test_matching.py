"""The matcher against a loop over pairs written from the definition, and the cases that crash or surprise in ESAM."""

import math

import pytest
import torch
from torch import Tensor

from ditr.training.matching import match, own_cost
from ditr.training.truth import Things
from tests.reference.padded_outputs import masks_of


def cost_of(masks: Tensor, things: Tensor, owners: Tensor, class_logits: Tensor | None = None) -> Tensor:
    """(Q,) cost of each query of one sample for its own thing."""
    logits = torch.zeros(len(masks), 2) if class_logits is None else class_logits
    truth = Things(masks=things[None], everywhere=torch.ones(1, 1, masks.shape[1]))
    (cost,) = own_cost(logits[None], masks_of(masks[None], level="superpoint"), query_owners=owners[None], things=truth)
    return cost


def pairs(masks: Tensor, things: Tensor, own: Tensor, class_logits: Tensor | None = None) -> set[tuple[int, int]]:
    """Of (Q, G) bool: which thing, at most one, each query is of."""
    owners = torch.where(own.any(dim=1), own.int().argmax(dim=1), -1)
    cost = cost_of(masks, things, owners, class_logits)
    answers = match(cost, query_owners=owners, things=len(things))
    return {(q, g) for g, q in answers.nonzero().tolist()}


def cost_of_one(logits: list[float], class_logits: list[float], thing: list[float]) -> float:
    """0.5 * -p(thing) + mean BCE + dice, position by position in Python floats."""
    p = [1 / (1 + math.exp(-x)) for x in logits]
    bce = -sum(math.log(a) if t else math.log(1 - a) for a, t in zip(p, thing, strict=True)) / len(p)
    overlap = sum(a * t for a, t in zip(p, thing, strict=True))
    dice = 1 - (2 * overlap + 1) / (sum(p) + sum(thing) + 1)
    a, b = (math.exp(x) for x in class_logits)
    return -0.5 * a / (a + b) + bce + dice


def brute_force(masks: Tensor, class_logits: Tensor, things: Tensor, own: Tensor) -> set[tuple[int, int]]:
    found = set()
    for g in range(len(things)):
        mine = [
            (cost_of_one(masks[q].tolist(), class_logits[q].tolist(), things[g].tolist()), q)
            for q in range(len(masks))
            if own[q, g]
        ]
        if mine:
            found.add((min(mine)[1], g))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_each_thing_gets_its_cheapest_own_query(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    queries, things, positions = 12, 5, 30
    masks = 3 * torch.randn(queries, positions, generator=rng)
    class_logits = torch.randn(queries, 2, generator=rng)
    truth = (torch.rand(things, positions, generator=rng) < 0.3).float()
    owner = torch.randint(-1, things - 1, (queries,), generator=rng)  # the last thing never has a query of its own
    own = owner[:, None] == torch.arange(things)

    cost = cost_of(masks, truth, owner, class_logits)
    for q, g in enumerate(owner.tolist()):
        expected = cost_of_one(masks[q].tolist(), class_logits[q].tolist(), truth[g].tolist())
        assert g == -1 or cost[q].item() == pytest.approx(expected, rel=1e-4)
    got = pairs(masks, truth, own, class_logits)
    assert got == brute_force(masks, class_logits, truth, own)
    assert all(g != things - 1 for _, g in got)


GOOD, BAD = [5.0, 5.0, -5.0], [-5.0, -5.0, 5.0]
THING = [[1.0, 1.0, 0.0]]


def test_a_thing_without_an_own_query_matches_none_however_good_the_masks() -> None:
    assert pairs(torch.tensor([GOOD, GOOD]), torch.tensor(THING), torch.tensor([[False], [False]])) == set()


def test_only_own_queries_compete() -> None:
    own = torch.tensor([[False], [True], [True]])
    masks = torch.tensor([GOOD, BAD, [0.0, 0.0, 0.0]])
    assert pairs(masks, torch.tensor(THING), own) == {(2, 0)}


def test_an_exact_tie_for_the_cheapest_matches_none() -> None:
    own = torch.tensor([[True], [True], [True]])
    assert pairs(torch.tensor([GOOD, GOOD, BAD]), torch.tensor(THING), own) == set()


def test_a_tie_among_the_others_does_not_matter() -> None:
    own = torch.tensor([[True], [True], [True]])
    assert pairs(torch.tensor([BAD, GOOD, BAD]), torch.tensor(THING), own) == {(1, 0)}


@pytest.mark.parametrize(("mine", "expected"), [(True, {(0, 0)}), (False, set())])
def test_a_single_query_matches_iff_it_is_the_things_own(mine: bool, expected: set[tuple[int, int]]) -> None:
    assert pairs(torch.tensor([BAD]), torch.tensor(THING), torch.tensor([[mine]])) == expected


def test_two_queries() -> None:
    things = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert pairs(torch.tensor([GOOD, BAD]), things, torch.eye(2) > 0) == {(0, 0), (1, 1)}
    both_of_the_first = torch.tensor([[True, False], [True, False]])
    assert pairs(torch.tensor([BAD, GOOD]), things, both_of_the_first) == {(1, 0)}


def test_no_thing_matches_nothing() -> None:
    nothing = torch.full((2,), -1)
    assert not match(torch.zeros(2), query_owners=nothing, things=1).any()
