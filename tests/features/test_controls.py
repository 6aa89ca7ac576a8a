"""Features that tell nothing: zeros, and the map of a frame of another scene."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ditr.errors import DitrError
from ditr.features.controls import map_reader, partners
from ditr.features.precomputed_maps import PrecomputedMaps
from ditr.features.store import FeatureStore
from ditr.spec.entries import PointsEntry

SHAPE = (2, 3, 4)
scene_sizes = st.lists(st.integers(1, 6), min_size=2, max_size=8).filter(lambda sizes: 2 * max(sizes) <= sum(sizes))


def ids(sizes: list[int]) -> list[str]:
    return [f"scene{scene:04d}_00_{200 * frame}" for scene, size in enumerate(sizes) for frame in range(size)]


@given(scene_sizes, st.randoms(use_true_random=False))
def test_every_frame_has_its_own_partner_of_another_scene(sizes: list[int], random: object) -> None:
    frames = ids(sizes)
    found = partners(frames)
    assert sorted(found) == sorted(found.values()) == sorted(frames)
    assert all(frame[:12] != partner[:12] for frame, partner in found.items())
    shuffled = list(frames)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert partners(shuffled) == found, "it depends on which frames there are, not on their order"


def test_one_scene_with_most_of_the_frames_is_refused() -> None:
    with pytest.raises(DitrError, match="one scene has 3 of the split's 5 frames"):
        partners(ids([3, 2]))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    maps = FeatureStore(tmp_path / "maps", shape=SHAPE)
    for number, frame_id in enumerate(ids([2, 2])):
        maps.write(frame_id, torch.full(SHAPE, float(number)))
    return maps


def test_what_each_control_reads_also_in_another_process(store: FeatureStore) -> None:
    split = ids([2, 2])
    own, zero, other, mean = (
        pickle.loads(pickle.dumps(map_reader(store, control=control, split=split)))
        for control in ("none", "zero", "shuffled", "mean")
    )
    for number, frame_id in enumerate(split):
        assert own(frame_id).unique().tolist() == [number]
        zeros = zero(frame_id)
        assert (zeros.dtype, tuple(zeros.shape), float(zeros.abs().max())) == (torch.float16, SHAPE, 0.0)
        assert mean(frame_id).unique().tolist() == [1.5], "of 0, 1, 2 and 3"
        assert split[int(other(frame_id)[0, 0, 0])] == partners(split)[frame_id]


def test_controls_of_features_of_points_are_one_feature_for_all(tmp_path: Path) -> None:
    tables = {"scene0000_00_0": np.array([[0.0, 8], [2, 8]]), "scene0001_00_0": np.array([[3.0, 0], [3, 0], [3, 6]])}
    for frame_id, rows in tables.items():
        np.save(tmp_path / f"{frame_id}.npy", rows)
    maps = PrecomputedMaps(tmp_path, entry=PointsEntry(kind="points", path="", files="{id}.npy", channels=2))
    zero, mean = (map_reader(maps, control=control, split=list(tables))(frame) for control, frame in (
        ("zero", "scene0000_00_0"), ("mean", "scene0001_00_0")
    ))  # fmt: skip
    assert zero.tolist() == [[[0.0]], [[0.0]]]
    assert mean.tolist() == [[[2.0]], [[5.0]]], "of each frame's mean"
