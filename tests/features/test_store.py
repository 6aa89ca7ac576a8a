from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

from ditr.errors import Code, DitrError
from ditr.features.store import JOURNAL, FeatureStore

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
    assert torch.equal(torch.from_numpy(np.load(store.path("scene0000_00_0"))), tokens.half())
    assert sorted(path.name for path in store.folder.iterdir()) == ["digests.xxh128", "scene0000_00_0.npy"]


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
    with pytest.raises(DitrError, match="is damaged: its digest") as raised:
        store.read("a")
    assert raised.value.fix == f"delete {store.path('a')} and run again"
    (store.folder / JOURNAL).unlink()  # as after a kill before the map's line was written
    with pytest.raises(DitrError, match=message) as raised:
        FeatureStore(store.folder, shape=SHAPE).read("a")
    assert raised.value.fix == f"delete {store.path('a')} and run again"


def test_values_beyond_half_precision_are_refused_not_stored(store: FeatureStore) -> None:
    with pytest.raises(DitrError, match="not finite in float16"):
        store.write("a", torch.full(SHAPE, 1e6))
    assert store.missing(["a"]) == ["a"]


def test_a_write_that_fails_leaves_no_map_behind(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(file: object, part: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("ditr.features.store._write_all", disk_full)
    with pytest.raises(OSError, match="no space"):
        store.write("a", torch.zeros(SHAPE))
    assert store.missing(["a"]) == ["a"]
    assert list(store.folder.iterdir()) == []


def test_one_changed_bit_is_an_error_with_the_fix(store: FeatureStore) -> None:
    store.write("a", torch.randn(SHAPE))
    raw = bytearray(store.path("a").read_bytes())
    raw[-2] ^= 1
    store.path("a").write_bytes(raw)
    with pytest.raises(DitrError, match="is damaged: its digest is") as raised:
        store.read("a")
    assert raised.value.fix == f"delete {store.path('a')} and run again"


def test_a_map_that_another_process_made_anew_is_not_taken_for_damaged(store: FeatureStore) -> None:
    store.write("a", torch.zeros(SHAPE))
    store.read("a")
    FeatureStore(store.folder, shape=SHAPE).write("a", torch.ones(SHAPE))
    assert torch.equal(store.read("a"), torch.ones(SHAPE).half())


def test_the_journal_is_what_xxh128sum_reads(store: FeatureStore) -> None:
    store.write("a", torch.randn(SHAPE))
    digest, _, name = (store.folder / "digests.xxh128").read_text().rstrip("\n").partition("  ")
    assert name == "a.npy"
    assert digest == xxhash.xxh128((store.folder / name).read_bytes()).hexdigest() == store.digest("a")


def test_what_a_killed_process_left_is_put_right(store: FeatureStore) -> None:
    for name in ("a", "b", "c"):
        store.write(name, torch.randn(SHAPE))
    whole = store.path("b").stat().st_mtime_ns
    journal = store.folder / "digests.xxh128"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0] + lines[2] + lines[1][:20])  # b was renamed, its line torn
    (store.folder / ".d.npy.12345").write_bytes(b"half a map")
    store = FeatureStore(store.folder, shape=SHAPE)
    assert store.digest("b") is None
    store.recover(["a", "b", "c", "d"])
    assert sorted(journal.read_text().splitlines(keepends=True)) == sorted(lines)
    assert sorted(path.name for path in store.folder.iterdir()) == ["a.npy", "b.npy", "c.npy", "digests.xxh128"]
    assert store.path("b").stat().st_mtime_ns == whole


def test_a_map_of_unknown_origin_is_looked_at_before_its_digest_is_taken(store: FeatureStore) -> None:
    store.folder.mkdir()
    np.save(store.path("a"), np.full(SHAPE, np.nan, np.float16))
    with pytest.raises(DitrError, match="not finite"):
        store.recover(["a"])
    assert store.digest("a") is None


def test_the_store_travels_to_another_process(store: FeatureStore) -> None:
    store.write("a", torch.ones(SHAPE))
    assert torch.equal(pickle.loads(pickle.dumps(store.read))("a"), torch.ones(SHAPE).half())
