from __future__ import annotations

import threading

import pytest

from ditr.catalog import locate_dataset
from ditr.data.dataset import open_dataset
from ditr.rooms import dataset as rooms
from ditr.rooms import make_missing, make_once
from ditr.spec.entries import SplitEntry, SynthRoomsEntry
from ditr.spec.registry import Registry

ENTRY = SynthRoomsEntry(
    kind="synthrooms",
    seed=0,
    train=SplitEntry(scenes=1, frames=1),
    val=SplitEntry(scenes=1, frames=1),
    texture_share=0.4,
)


def test_a_made_data_set_is_found_again_without_making_it(tiny_dataset, monkeypatch):
    monkeypatch.setattr(rooms, "make", None)
    make_missing("synthrooms_tiny", registry=Registry())
    again = open_dataset("synthrooms_tiny", registry=Registry())
    assert again.root == tiny_dataset.root
    assert again.digest == tiny_dataset.digest
    assert not {i[:12] for i in again.train.ids} & {i[:12] for i in again.val.ids}


def test_two_at_once_make_it_once(tmp_path, monkeypatch):
    calls = []

    def slow_make(entry, folder, *, workers, progress):
        calls.append(folder)
        assert not folder.exists()
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")

    monkeypatch.setattr(rooms, "make", slow_make)
    threads = [threading.Thread(target=make_once, args=(ENTRY, tmp_path / "set")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("old", "new"), [('"digest"', '"dugest"'), ('"texture_ids": [', '"texture_ids": ["", '), ("{", "[")]
)
def test_a_data_set_whose_manifest_is_damaged_is_made_again(old, new, tmp_path, monkeypatch):
    monkeypatch.setenv("DITR_CACHE", str(tmp_path))
    registry = Registry()
    monkeypatch.setattr(registry, "dataset", lambda name: ENTRY)
    make_missing("tiny", registry=registry)
    manifest = locate_dataset("tiny", ENTRY) / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace(old, new, 1))
    make_missing("tiny", registry=registry)
    assert manifest.read_text() == whole


def test_a_folder_of_the_users_own_is_never_removed(tmp_path):
    """Another program's manifest.json in it is none of ours."""
    (tmp_path / "manifest.json").write_text("{}")
    make_once(ENTRY, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_what_a_killed_process_left_of_a_data_set_goes_when_it_is_made(tmp_path, monkeypatch):
    for left in (".set.x1y2z3", ".setting.x1y2z3"):
        (tmp_path / left / "points").mkdir(parents=True)
    monkeypatch.setattr(rooms, "make", lambda entry, folder, **how: folder.mkdir())
    make_once(ENTRY, tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".set.lock", ".setting.x1y2z3", "set"]
