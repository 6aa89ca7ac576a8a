from __future__ import annotations

import numpy as np
import pytest
import torch

from ditr.data.batch import Targets
from ditr.data.classes import CLASS_NAMES, RAW_IDS, THING_NAMES
from ditr.data.targets import make_targets

# Raw ids as they lie on disk: chair 2 and floor 3 are the other way round there.
WALL, CHAIR, FLOOR, TABLE, DOOR, NOT_A_CLASS = 1, 2, 3, 4, 5, 1357


def targets_of(rows: list[tuple[int, int, int]], *, esam_compat: bool = False) -> Targets:
    """Each row is one point: instance id, raw semantic id, superpoint."""
    instance, semantic, superpoint = np.array(rows, dtype=np.int64).T
    return make_targets(instance, semantic, superpoint, esam_compat=esam_compat)


def esams_relabelling(instance: np.ndarray, semantic: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """Ids and labels as ESAM makes them, one by one (docs/reference/esam.md, Pipeline 8)."""
    swapped = [{2: 3, 3: 2}.get(raw, raw) for raw in semantic.tolist()]
    classes = [list(RAW_IDS).index(raw) if raw in RAW_IDS else 200 for raw in swapped]
    ids = [-1 if c in (200, 0, 1) else i for i, c in zip(instance.tolist(), classes, strict=True)]
    position = {old: place - 1 for place, old in enumerate(sorted(set(ids)))}  # takes for granted that -1 is first
    relabelled = [position[old] for old in ids]
    labels = [classes[relabelled.index(new)] - 2 for new in range(max(relabelled) + 1)]
    evaluated = []
    for new, c in zip(relabelled, classes, strict=True):
        marked = -1 if c == 200 else c if c in (0, 1) else new + 2
        evaluated.append(max(marked - 2, -1))  # how the evaluator reads it back
    return relabelled, labels, evaluated


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
    assert without.instance_of_superpoint.tolist() == with_background.instance_of_superpoint.tolist()[:3] == [0, 1, 2]


@pytest.mark.parametrize("background", [(WALL,), (FLOOR,), (NOT_A_CLASS,), (WALL, FLOOR, NOT_A_CLASS), ()])
@pytest.mark.parametrize("seed", range(4))
def test_compat_is_esams_relabelling_and_the_default_differs_only_without_background(
    seed: int, background: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    instance = rng.choice([3, 11, 4, 25], size=60)
    semantic = np.array([CHAIR, TABLE, DOOR])[instance % 3]
    for raw in background:
        semantic[rng.integers(0, 60, size=4)] = raw
    superpoint = np.arange(60) % 7
    esam, labels, evaluated = esams_relabelling(instance, semantic)
    compat = make_targets(instance, semantic, superpoint, esam_compat=True)
    fixed = make_targets(instance, semantic, superpoint)
    assert compat.instance_of_point.tolist() == esam == evaluated
    assert compat.labels.tolist() == labels
    assert len(compat.ids) == len(labels)
    if background:
        assert torch.equal(fixed.instance_of_point, compat.instance_of_point)
        assert torch.equal(fixed.instance_of_superpoint, compat.instance_of_superpoint)
    else:
        assert fixed.instance_of_point.tolist() == [new + 1 for new in esam]


def test_compat_loses_the_smallest_id_of_a_frame_without_background_and_nothing_else() -> None:
    rows = [(6, TABLE, 1), (5, CHAIR, 0), (5, CHAIR, 0), (8, DOOR, 2)]
    targets = targets_of(rows, esam_compat=True)
    fixed = targets_of(rows)
    assert targets.instance_of_point.tolist() == [0, -1, -1, 1]
    assert [THING_NAMES[label] for label in targets.labels] == ["table", "door"]
    assert torch.equal(targets.instance_of_superpoint, (fixed.instance_of_superpoint - 1).clamp(min=-1))
    assert torch.equal(targets.class_of_superpoint, fixed.class_of_superpoint), "the points keep their class"


@pytest.mark.parametrize("background", [(), (WALL,)])
def test_id_0_with_a_class_is_an_instance_in_compat_only(background: tuple[int, ...]) -> None:
    instance = np.array([0, 0, 7, 7, 9] + [3] * len(background))
    semantic = np.array([CHAIR, CHAIR, TABLE, TABLE, DOOR, *background])
    superpoint = np.array([0, 0, 1, 1, 2] + [3] * len(background))
    esam, labels, evaluated = esams_relabelling(instance, semantic)
    compat = make_targets(instance, semantic, superpoint, esam_compat=True)
    assert compat.instance_of_point.tolist() == esam == evaluated
    assert compat.labels.tolist() == labels
    assert make_targets(instance, semantic, superpoint).instance_of_point.tolist()[:5] == [-1, -1, 0, 0, 1]


def test_compat_leaves_nothing_of_a_frame_with_one_instance_alone() -> None:
    targets = targets_of([(5, CHAIR, 0), (5, CHAIR, 1)], esam_compat=True)
    assert targets.instance_of_point.tolist() == [-1, -1]
    assert (targets.instance_of_superpoint.tolist(), targets.labels.shape) == ([-1, -1], (0,))


def test_a_superpoint_needs_more_than_half_of_its_points() -> None:
    half = targets_of([(1, CHAIR, 0), (2, TABLE, 0), (1, CHAIR, 1), (1, CHAIR, 1), (2, TABLE, 1)])
    assert half.instance_of_superpoint.tolist() == [-1, 0]
    assert half.class_of_superpoint[0] == 200
    assert CLASS_NAMES[half.class_of_superpoint[1]] == "chair"


def test_stuff_owns_its_superpoints_as_a_class_only() -> None:
    targets = targets_of([(3, FLOOR, 0), (3, FLOOR, 0), (0, 0, 1), (1, CHAIR, 2)])
    assert targets.class_of_superpoint.tolist() == [1, 200, 3 - 1]
    assert targets.instance_of_superpoint.tolist() == [-1, -1, 0]


def test_an_instance_that_straddles_stuff_keeps_its_thing_points_and_its_thing_label() -> None:
    targets = targets_of([(1, FLOOR, 0), (1, FLOOR, 0), (1, CHAIR, 1), (1, TABLE, 1), (1, TABLE, 1)])
    assert targets.instance_of_point.tolist() == [-1, -1, 0, 0, 0]
    assert [THING_NAMES[label] for label in targets.labels] == ["table"]


def test_how_large_ids_are_changes_their_values_alone() -> None:
    ids, semantic, superpoint = np.arange(60) % 9, np.full(60, CHAIR), np.arange(60) // 4
    small, large = (make_targets(ids * factor, semantic, superpoint) for factor in (1, 10**12))
    assert torch.equal(large.ids, small.ids * 10**12)
    for name in ("instance_of_point", "instance_of_superpoint", "labels"):
        assert torch.equal(getattr(large, name), getattr(small, name)), name


def test_a_frame_of_stuff_alone_has_no_things() -> None:
    targets = targets_of([(1, WALL, 0), (2, FLOOR, 1)])
    assert targets.instance_of_superpoint.tolist() == [-1, -1]
    assert targets.labels.shape == (0,)
    assert targets.labels.dtype == torch.int64


@pytest.mark.parametrize("seed", range(3))
def test_majorities_equal_a_count_point_by_point(seed: int) -> None:
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
            assert bool(targets.instance_of_superpoint[s] == g) == (np.mean(owner[inside] == g) > 0.5)
    assert targets.class_of_superpoint.shape == targets.instance_of_superpoint.shape == (40,)
