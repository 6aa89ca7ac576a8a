from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ditr import catalog
from ditr.catalog import locate_checkpoint, locate_dataset, locate_weights, sha256_of
from ditr.errors import Code, DitrError
from ditr.spec.entries import FolderEntry, IntrinsicsEntry, PretrainedWeights, SplitEntry, SynthRoomsEntry
from ditr.spec.models import FileCheckpoint, RegisteredCheckpoint
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


def test_pretrained_weights_are_the_users_file_or_nothing(places: Path) -> None:
    weights = PretrainedWeights(kind="pretrained", file="vit.pth", url="https://example.org/vit.pth")
    assert locate_weights(weights) is None
    (places / "weights" / "vit.pth").write_bytes(b"x")
    assert locate_weights(weights) == places / "weights" / "vit.pth"
