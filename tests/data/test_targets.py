from __future__ import annotations

import numpy as np
import pytest
import torch

from ditr.data.classes import CLASS_NAMES, THING_NAMES
from ditr.data.targets import make_targets

# Raw ids as they lie on disk: chair 2 and floor 3 are the other way round there.
WALL, CHAIR, FLOOR, TABLE, DOOR, NOT_A_CLASS = 1, 2, 3, 4, 5, 1357


def targets_of(rows: list[tuple[int, int, int]]):  # type: ignore[no-untyped-def]
    """Each row is one point: instance id, raw semantic id, superpoint."""
    instance, semantic, superpoint = np.array(rows, dtype=np.int64).T
    return make_targets(instance, semantic, superpoint)


def test_things_are_numbered_by_id_and_stuff_and_unannotated_points_are_background() -> None:
    targets = targets_of(
        [(9, TABLE, 0), (4, CHAIR, 1), (2, WALL, 2), (3, FLOOR, 3), (0, 0, 4), (7, NOT_A_CLASS, 5), (4, CHAIR, 1)]
    )
    assert targets.instance_of_point.tolist() == [1, 0, -1, -1, -1, -1, 0]
    assert [THING_NAMES[label] for label in targets.labels] == ["chair", "table"]


def test_no_instance_is_lost_in_a_frame_without_background() -> None:
    rows = [(5, CHAIR, 0), (5, CHAIR, 0), (6, TABLE, 1), (8, DOOR, 2)]
    without = targets_of(rows)
    with_background = targets_of([*rows, (1, WALL, 3)])
    assert without.instance_of_point.tolist() == [0, 0, 1, 2]
    assert with_background.instance_of_point.tolist() == [0, 0, 1, 2, -1]
    assert without.labels.tolist() == with_background.labels.tolist() == [0, 1, 2]
    assert torch.equal(without.instance_masks, with_background.instance_masks[:, :3])


def test_a_superpoint_needs_more_than_half_of_its_points() -> None:
    half = targets_of([(1, CHAIR, 0), (2, TABLE, 0), (1, CHAIR, 1), (1, CHAIR, 1), (2, TABLE, 1)])
    assert half.instance_masks.tolist() == [[False, True], [False, False]]
    assert half.semantic_masks[:, 0].nonzero().flatten().tolist() == [200]
    assert [CLASS_NAMES[row] for row in half.semantic_masks[:, 1].nonzero().flatten()] == ["chair"]


def test_stuff_owns_its_superpoints_in_the_semantic_masks_only() -> None:
    targets = targets_of([(3, FLOOR, 0), (3, FLOOR, 0), (0, 0, 1), (1, CHAIR, 2)])
    assert targets.semantic_masks.int().argmax(dim=0).tolist() == [1, 200, 3 - 1]
    assert targets.instance_masks.tolist() == [[False, False, True]]


def test_an_instance_that_straddles_stuff_keeps_its_thing_points_and_its_thing_label() -> None:
    targets = targets_of([(1, FLOOR, 0), (1, FLOOR, 0), (1, CHAIR, 1), (1, TABLE, 1), (1, TABLE, 1)])
    assert targets.instance_of_point.tolist() == [-1, -1, 0, 0, 0]
    assert [THING_NAMES[label] for label in targets.labels] == ["table"]


def test_a_frame_of_stuff_alone_has_no_things() -> None:
    targets = targets_of([(1, WALL, 0), (2, FLOOR, 1)])
    assert targets.instance_masks.shape == (0, 2)
    assert targets.labels.shape == (0,)
    assert targets.labels.dtype == torch.int64


@pytest.mark.parametrize("seed", range(3))
def test_masks_equal_a_count_point_by_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    superpoint = np.concatenate([np.arange(40), rng.integers(0, 40, 360)])
    instance = np.where(rng.random(400) < 0.7, superpoint // 3 * 1000 + 17, rng.integers(0, 4, 400))
    semantic = np.where(instance > 10, TABLE + superpoint // 3 % 2, rng.integers(0, 12, 400))
    targets = make_targets(instance, semantic, superpoint)
    things = [i for i in np.unique(instance) if i > 0 and any(s not in (0, 1, 3, 12) for s in semantic[instance == i])]
    assert len(targets.labels) == len(things)
    owner = targets.instance_of_point.numpy()
    for s in range(40):
        inside = superpoint == s
        for g in range(len(things)):
            assert bool(targets.instance_masks[g, s]) == (np.mean(owner[inside] == g) > 0.5)
    assert targets.semantic_masks.shape == (201, 40)
    assert torch.equal(targets.semantic_masks.sum(dim=0), torch.ones(40, dtype=torch.int64))
