from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ditr.errors import Code, DitrError
from ditr.features.store import FeatureStore

SHAPE = (4, 3, 5)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "maps", shape=SHAPE)


def test_a_map_comes_back_in_half_precision(store: FeatureStore) -> None:
    tokens = torch.randn(SHAPE)
    store.write("scene0000_00_0", tokens)
    read = store.read("scene0000_00_0")
    assert read.dtype == torch.float16
    assert torch.equal(read, tokens.half())
    assert [path.name for path in store.folder.iterdir()] == ["scene0000_00_0.npy"]


def test_only_missing_frames_are_named_in_their_order(store: FeatureStore) -> None:
    assert store.missing(["b", "a"]) == ["b", "a"]
    store.write("a", torch.zeros(SHAPE))
    assert store.missing(["b", "a", "c"]) == ["b", "c"]


def test_a_missing_map_is_an_error_that_names_frame_and_file(store: FeatureStore) -> None:
    with pytest.raises(DitrError, match="no 2D feature map") as raised:
        store.read("scene0000_00_0")
    assert raised.value.code == Code.FEATURES
    assert "scene0000_00_0" in raised.value.where
    assert str(store.folder) in raised.value.where


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: np.save(path, np.zeros((4, 5, 3), np.float16)), r"\(4, 5, 3\), not float16 \(4, 3, 5\)"),
        (lambda path: np.save(path, np.zeros(SHAPE, np.float32)), "float32"),
        (lambda path: np.save(path, np.full(SHAPE, np.inf, np.float16)), "not finite"),
        (lambda path: np.save(path, np.array([print], dtype=object), allow_pickle=True), "cannot be read"),
    ],
    ids=["truncated", "empty", "other shape", "other type", "infinite", "pickled objects"],
)
def test_a_damaged_map_is_an_error_with_the_fix(store: FeatureStore, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    store.write("a", torch.zeros(SHAPE))
    damage(store.path("a"))
    with pytest.raises(DitrError, match=message) as raised:
        store.read("a")
    assert raised.value.fix == f"delete {store.path('a')} and run again"


def test_values_beyond_half_precision_are_refused_not_stored(store: FeatureStore) -> None:
    with pytest.raises(DitrError, match="not finite in float16"):
        store.write("a", torch.full(SHAPE, 1e6))
    assert store.missing(["a"]) == ["a"]


def test_a_write_that_fails_leaves_no_map_behind(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(file, array, **_):  # type: ignore[no-untyped-def]
        file.write(b"half a map")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", disk_full)
    with pytest.raises(OSError, match="no space"):
        store.write("a", torch.zeros(SHAPE))
    assert store.missing(["a"]) == ["a"]


def test_the_store_travels_to_another_process(store: FeatureStore) -> None:
    store.write("a", torch.ones(SHAPE))
    assert torch.equal(pickle.loads(pickle.dumps(store.read))("a"), torch.ones(SHAPE).half())
