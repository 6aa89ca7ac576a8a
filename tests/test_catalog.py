from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import pytest

from ditr import catalog, paths
from ditr.catalog import locate_checkpoint, locate_dataset, locate_weights, sha256_of, weights_stamp
from ditr.errors import Code, DitrError
from ditr.spec.entries import FolderEntry, IntrinsicsEntry, PretrainedWeights, SplitEntry, SynthRoomsEntry
from ditr.spec.models import FileCheckpoint, FileWeights, HubWeights, RegisteredCheckpoint, SeededWeights
from ditr.spec.registry import Registry

ROOMS = SynthRoomsEntry(
    kind="synthrooms",
    seed=0,
    train=SplitEntry(scenes=2, frames=2),
    val=SplitEntry(scenes=1, frames=2),
    texture_share=0.4,
)
WEIGHTS = b"weights" * 1000


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data", "weights", "cache"):
        monkeypatch.setenv(f"DITR_{name.upper()}", str(tmp_path / name))
        (tmp_path / name).mkdir()
    (tmp_path / "registry" / "checkpoints").mkdir(parents=True)
    return tmp_path


def register(places: Path, *, sha256: str, url: str = "") -> Registry:
    text = f"format: mask3d\nfile: w.pth\nurl: '{url}'\nsha256: {sha256}\nkey_prefix: model.\nentries: 372\n"
    text += "backbone: {}\nvoxel_size_m: 0.02\n"
    (places / "registry" / "checkpoints" / "w.yaml").write_text(text)
    return Registry(places / "registry")


def test_an_embedded_set_has_a_folder_for_each_content(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = locate_dataset("rooms", ROOMS)
    assert folder.parent == places / "cache" / "datasets"
    assert len(folder.name.removeprefix("rooms-")) == 12
    assert locate_dataset("rooms", ROOMS.model_copy(update={"description": "other words"})) == folder
    assert locate_dataset("rooms", ROOMS.model_copy(update={"texture_share": 0.5})) != folder
    monkeypatch.setattr(catalog, "SYNTHROOMS_VERSION", -1)
    assert locate_dataset("rooms", ROOMS) != folder


def test_the_users_folder_is_below_the_data_directory_or_absolute(places: Path) -> None:
    intrinsics = IntrinsicsEntry(fx=1.0, fy=1.0, cx=0.0, cy=0.0, width=1, height=1)
    entry = FolderEntry(kind="folder", path="sv", infos={"train": "t.pkl", "val": "v.pkl"}, intrinsics=intrinsics)
    assert locate_dataset("sv", entry) == places / "data" / "sv"
    assert locate_dataset("sv", entry.model_copy(update={"path": "/disk/sv"})) == Path("/disk/sv")


@pytest.mark.parametrize("folder", ["weights", "registry/checkpoints"])
def test_a_checkpoint_is_found_and_its_digest_checked(places: Path, folder: str) -> None:
    (places / folder / "w.pth").write_bytes(WEIGHTS)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    for pinned in (digest, "null"):
        found = locate_checkpoint(
            RegisteredCheckpoint(kind="registry", name="w"), registry=register(places, sha256=pinned)
        )
        assert (found.path, found.sha256, found.format) == (places / folder / "w.pth", digest, "mask3d")
        assert (found.key_prefix, found.entries) == ("model.", 372)


def test_a_damaged_checkpoint_is_refused(places: Path) -> None:
    (places / "weights" / "w.pth").write_bytes(WEIGHTS[:-1])
    registry = register(places, sha256=hashlib.sha256(WEIGHTS).hexdigest(), url="https://example.org/w.pth")
    with pytest.raises(DitrError, match="not the file that checkpoint 'w' pins") as raised:
        locate_checkpoint(RegisteredCheckpoint(kind="registry", name="w"), registry=registry)
    assert raised.value.code is Code.CHECKPOINT
    assert "https://example.org/w.pth" in raised.value.fix


def test_a_missing_checkpoint_says_where_to_get_it_and_where_to_put_it(places: Path) -> None:
    registry = register(places, sha256="null", url="https://example.org/w.pth")
    with pytest.raises(DitrError) as raised:
        locate_checkpoint(RegisteredCheckpoint(kind="registry", name="w"), registry=registry)
    message = str(raised.value)
    assert "https://example.org/w.pth" in message
    assert str(places / "weights") in message
    assert "DITR_WEIGHTS" in message


def test_a_checkpoint_file_of_the_users(places: Path) -> None:
    file = places / "mine.pth"
    file.write_bytes(WEIGHTS)
    registry = Registry(places / "registry")
    mine = FileCheckpoint(kind="file", path=str(file), format="esam", key_prefix="module.")
    found = locate_checkpoint(mine, registry=registry)
    assert (found.sha256, found.key_prefix, found.entries) == (sha256_of(file), "module.", None)
    with pytest.raises(DitrError, match="no such weight file"):
        locate_checkpoint(mine.model_copy(update={"path": str(file) + ".gone"}), registry=registry)


def test_pretrained_weights_lie_beside_their_entry_or_among_the_users_or_nowhere(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITR_REGISTRY", str(places / "registry"))
    weights = PretrainedWeights(kind="pretrained", file="vit.pth", url="https://example.org/vit.pth")
    assert locate_weights(weights) is None
    assert weights_stamp(weights) is None
    (places / "weights" / "vit.pth").write_bytes(b"x")
    assert locate_weights(weights) == places / "weights" / "vit.pth"
    assert weights_stamp(weights) == f"sha256 {hashlib.sha256(b'x').hexdigest()}"
    beside = places / "registry" / "features" / "vit.pth"
    beside.parent.mkdir()
    beside.write_bytes(b"y")
    assert locate_weights(weights) == beside


def test_own_weights_are_the_named_file_and_the_hubs_are_never_a_file_here(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = FileWeights(kind="file", path="mine/vit.pth")
    monkeypatch.setattr(paths, "project_dir", lambda: places)
    assert locate_weights(own) is None
    (places / "mine").mkdir()
    (places / "mine" / "vit.pth").write_bytes(b"x")
    assert locate_weights(own) == places / "mine" / "vit.pth"
    absolute = FileWeights(kind="file", path=str(places / "mine" / "vit.pth"))
    assert weights_stamp(absolute) == weights_stamp(own) == f"sha256 {hashlib.sha256(b'x').hexdigest()}"
    hub = HubWeights(kind="hub")
    assert (locate_weights(hub), weights_stamp(hub)) == (None, None)


def test_weights_that_are_not_the_pinned_ones_are_refused(places: Path) -> None:
    (places / "weights" / "vit.pth").write_bytes(WEIGHTS)
    pinned = PretrainedWeights(kind="pretrained", file="vit.pth", sha256=hashlib.sha256(WEIGHTS).hexdigest())
    assert locate_weights(pinned) == places / "weights" / "vit.pth"
    (places / "weights" / "vit.pth").write_bytes(WEIGHTS[:-1])
    with pytest.raises(DitrError, match=f"pinned {pinned.sha256}") as raised:
        locate_weights(pinned)
    assert raised.value.code is Code.FEATURES
    assert raised.value.where == str(places / "weights" / "vit.pth")


def test_seeded_weights_are_told_apart_by_seed_and_by_what_draws_them() -> None:
    first, second = (weights_stamp(SeededWeights(kind="seeded", seed=seed)) for seed in (0, 1))
    assert first != second
    assert first == f"seed 0, torch {version('torch')}, timm {version('timm')}"
