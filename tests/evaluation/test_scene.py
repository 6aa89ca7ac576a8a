"""The merge of frames against one that remembers everything and tries every choice; and what a user relies on in it."""

from __future__ import annotations

import numpy as np
import pytest

from ditr.evaluation.instance_ap import scores
from ditr.evaluation.match_table import MatchTable
from ditr.evaluation.scene import Scene, empty_scene, merge
from ditr.evaluation.scene_truth import add_truth, empty_truth
from ditr.evaluation.voxels import VOXEL_M, voxel_corners, voxel_keys
from tests.reference.loop_scene import LoopScene


def random_frame(rng: np.random.Generator, *, points: int = 400) -> dict[str, np.ndarray]:
    """Points on both sides of the world's origin, and up to three instances in boxes, which may overlap."""
    xyz = rng.uniform([-0.3, -0.3, -0.1], [0.3, 0.3, 0.1], (points, 3)) + rng.uniform(-0.1, 0.1, 3)
    count = int(rng.integers(0, 4))
    centres, halves = rng.uniform(-0.25, 0.25, (count, 1, 3)), rng.uniform(0.06, 0.25, (count, 1, 3))
    return {
        "xyz": xyz,
        "rgb": rng.integers(0, 256, (points, 3)).astype(np.uint8),
        "masks": (np.abs(xyz - centres) < halves).all(axis=2),
        "scores": rng.random(count),
    }


def merged(frames: list[dict[str, np.ndarray]]) -> Scene:
    scene = empty_scene()
    for frame in frames:
        scene = merge(scene, **frame)
    return scene


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_a_merge_by_loops_makes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = [random_frame(rng) for _ in range(5)]
    scene, loop = merged(frames), LoopScene()
    for frame in frames:
        loop.add(**frame)
    voxels = [tuple(corner) for corner in voxel_corners(scene.keys).tolist()]
    assert set(voxels) == set(loop.points)
    assert len(scene) == len(loop.instances)
    for place, voxel in enumerate(voxels):
        xyz, rgb = (np.array(values) for values in zip(*loop.points[voxel], strict=True))
        assert scene.points[place] == len(xyz)
        np.testing.assert_allclose(scene.xyz[place], xyz.mean(axis=0))
        np.testing.assert_allclose(scene.rgb[place], rgb.mean(axis=0))
    members = scene.members().toarray()
    for index, instance in enumerate(loop.instances):
        assert {voxels[place] for place in np.flatnonzero(members[index])} == instance.voxels()
        assert scene.scores[index] == pytest.approx(np.mean(instance.scores))
        assert (scene.chances[index], scene.times[index]) == (len(instance.scores), instance.times)
        mine = scene.pair_instance == index
        shares = {voxels[v]: s for v, s in zip(scene.pair_voxel[mine], scene.pair_share[mine], strict=True)}
        assert shares == {voxel: pytest.approx(np.mean(said)) for voxel, said in instance.said.items()}


def test_the_references_own_cases_are_no_trivial_ones() -> None:
    """Else the test above would say little: instances found again, missed, and new ones."""
    times, missed = [], 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scene = merged([random_frame(rng) for _ in range(5)])
        times += scene.times.tolist()
        missed += int((scene.chances > scene.times).sum())
    assert max(times) >= 3
    assert min(times) == 1
    assert missed > 3


def wall(x0: float, x1: float) -> np.ndarray:
    """(N, 3) points of a wall of 1 m height, from x0 to x1, four to a voxel and off its edges."""
    x, z = np.meshgrid(np.arange(x0 + 0.0125, x1, 0.025), np.arange(0.0125, 1, 0.025))
    return np.stack([x.ravel(), np.full(x.size, 0.02), z.ravel()], axis=1)


def frame_of(xyz: np.ndarray, things: np.ndarray, score: float = 0.8) -> dict[str, np.ndarray]:
    """A perfect one of the things (N,), -1 = none."""
    ids = np.unique(things[things >= 0])
    return {
        "xyz": xyz,
        "rgb": np.zeros((len(xyz), 3)),
        "masks": things == ids[:, None],
        "scores": np.full(len(ids), score),
    }


def things_of(xyz: np.ndarray) -> np.ndarray:
    """Three pictures on the wall, one of them longer than a frame is wide."""
    x, z = xyz[:, 0], xyz[:, 2]
    high = z > 0.5
    things = np.full(len(xyz), -1)
    things[high & (x > 0.2) & (x < 0.8)] = 0
    things[high & (x > 0.8) & (x < 1.2)] = 1
    things[~high & (x > 0.1) & (x < 2.9)] = 2
    return things


def test_a_camera_that_passes_by_sees_each_thing_once() -> None:
    """Also a thing of which no frame shows more than a part, beside one that it touches."""
    scene, truth = empty_scene(), empty_truth()
    for x0 in np.arange(0, 2.01, 0.25):
        xyz = wall(x0, x0 + 1)
        scene = merge(scene, **frame_of(xyz, things_of(xyz)))
        truth = add_truth(truth, xyz=xyz, ids=things_of(xyz))
    assert len(scene) == 3
    table = MatchTable(min_points=12)
    table.add("wall", scene.instances(), truth.of_voxels(scene.keys))
    assert scores(table).ap == pytest.approx(1)
    whole = np.unique(voxel_keys(wall(0, 3)))
    assert np.array_equal(scene.keys, whole)


def test_an_instance_that_is_seen_again_but_not_found_loses_score() -> None:
    xyz = wall(0, 1)
    things = np.where(xyz[:, 0] < 0.5, 0, -1)
    nothing = np.full(len(xyz), -1)
    scene = merged([frame_of(xyz, things), frame_of(xyz, nothing), frame_of(wall(0.5, 1), np.full(800, -1))])
    assert scene.scores.tolist() == pytest.approx([0.4]), "the third frame did not see it"
    assert scene.chances.tolist() == [2]
    assert scene.times.tolist() == [1]


def test_a_voxel_that_frames_disagree_about_goes_by_their_mean() -> None:
    xyz = wall(0, 1)
    small, large = np.where(xyz[:, 0] < 0.5, 0, -1), np.where(xyz[:, 0] < 0.75, 0, -1)
    once = merged([frame_of(xyz, large), frame_of(xyz, small), frame_of(xyz, small)])
    assert once.members().sum() == 10 * 20
    twice = merged([frame_of(xyz, large), frame_of(xyz, small), frame_of(xyz, large)])
    assert twice.members().sum() == 15 * 20


def test_a_scene_does_not_grow_by_frames_that_show_nothing_new() -> None:
    xyz = wall(0, 1)
    frame = frame_of(xyz, things_of(xyz))
    once = merge(empty_scene(), **frame)
    often = merged([frame] * 20)
    for name, value in vars(once).items():
        assert getattr(often, name).shape == value.shape, name
    assert np.array_equal(often.times, 20 * once.times)


def test_of_overlapping_instances_the_better_one_has_the_voxel() -> None:
    xyz = wall(0, 1)
    masks = np.array([xyz[:, 0] < 0.75, xyz[:, 0] > 0.5])
    scene = merge(empty_scene(), xyz=xyz, rgb=np.zeros((len(xyz), 3)), masks=masks, scores=np.array([0.5, 0.9]))
    instance = scene.instance_of_voxel()
    x = voxel_corners(scene.keys)[:, 0] * VOXEL_M
    assert set(instance[x > 0.49].tolist()) == {1}
    assert set(instance[x < 0.49].tolist()) == {0}
    assert scene.instances().scores.tolist() == pytest.approx([0.9, 0.5]), "best first"
    assert merge(empty_scene(), **frame_of(xyz, np.full(len(xyz), -1))).instance_of_voxel().tolist() == [-1] * 400


def test_keys_are_the_voxels_of_points_on_both_sides_of_the_origin() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(-400_000, 400_000, (1000, 3))
    keys = voxel_keys((corners + rng.uniform(0.01, 0.99, corners.shape)) * VOXEL_M)
    assert np.array_equal(voxel_corners(keys), corners)
    assert (keys >= 0).all()


def test_the_truth_of_a_voxel_is_what_most_of_its_points_are_of_in_all_frames() -> None:
    rng = np.random.default_rng(1)
    truth, votes = empty_truth(), dict[tuple[int, ...], list[int]]()
    every = []
    for _ in range(4):
        xyz, ids = rng.uniform(0, 0.2, (90, 3)), rng.choice([-1, 3, 8, 9], 90)
        truth = add_truth(truth, xyz=xyz, ids=ids)
        every.append(xyz)
        for point, found in zip(xyz, ids.tolist(), strict=True):
            votes.setdefault(tuple(np.floor(point / VOXEL_M).astype(int).tolist()), []).append(found)
    keys = np.unique(voxel_keys(np.concatenate(every)))
    of_voxel = truth.of_voxels(keys)
    numbers = {-1: -1, 3: 0, 8: 1, 9: 2}
    for voxel, found in zip(voxel_corners(keys).tolist(), of_voxel.tolist(), strict=True):
        said = votes[tuple(voxel)]
        most = max(said.count(one) for one in set(said))
        assert found == numbers[min(one for one in set(said) if said.count(one) == most)]
