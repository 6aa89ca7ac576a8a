from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ditr.data.dataset import Dataset
from ditr.data.info_pickle import FrameInfo, InfoFile
from ditr.data.scannet_sv import FrameSet
from ditr.errors import Code, DitrError
from ditr.features import extract
from ditr.features.extract import ensure_features, store_folder
from ditr.features.sources import load_source
from ditr.features.timm_models import create
from ditr.geometry.camera import Intrinsics
from ditr.spec.entries import PrecomputedEntry, PretrainedWeights, SeededWeights, VitEntry
from ditr.spec.models import FeatureSpec, FileWeights, HubWeights
from tests.reference.tiny_sources import VITS

CPU = torch.device("cpu")
ENTRY = VITS["dinov2_reg4"]
SPEC = FeatureSpec(source="tiny", input_size=(42, 56))
CAMERA = Intrinsics(fx=60, fy=60, cx=32, cy=24, width=64, height=48)


def frames_of(root: Path, scenes: range) -> FrameSet:
    infos = []
    for scene in scenes:
        name, image = f"scene{scene:04d}_00_0.bin", f"2D/scene{scene:04d}_00/color/0.jpg"
        (root / image).parent.mkdir(parents=True)
        pixels = np.random.default_rng(scene).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / image)
        infos.append(
            FrameInfo(
                scene=f"scene{scene:04d}_00",
                number="0",
                points_file=name,
                superpoints_file=name,
                instances_file=name,
                semantics_file=name,
                image=image,
                pose_c2w=np.eye(4),
                axis_align=np.eye(4),
            )
        )
    return FrameSet(root, infos=InfoFile(dataset="made", categories={}, frames=tuple(infos)), intrinsics=CAMERA)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("DITR_CACHE", str(tmp_path / "cache"))
    train, val = frames_of(tmp_path / "data", range(3)), frames_of(tmp_path / "data", range(3, 5))
    splits = {"train": train, "val": val}
    return Dataset(name="made", root=tmp_path / "data", digest="0123456789abcdef" * 2, splits=splits)


class Steps:
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        self.seen.append((done, total))


def ensure(dataset: Dataset, *, entry: VitEntry = ENTRY, progress: Steps | None = None):  # type: ignore[no-untyped-def]
    frames = [dataset.train, dataset.val]
    options = {} if progress is None else {"progress": progress}
    return ensure_features(frames, spec=SPEC, entry=entry, dataset=dataset, device=CPU, **options)  # type: ignore[arg-type]


def test_every_frame_gets_the_map_of_its_own_image(dataset: Dataset) -> None:
    store, steps = ensure(dataset), Steps()
    source = load_source(SPEC, entry=ENTRY, device=CPU)
    for frames in (dataset.train, dataset.val):
        for index, frame_id in enumerate(frames.ids):
            alone = source.encode(frames.image(index)[None])[0]
            assert torch.equal(store.read(frame_id), alone)
    assert len({store.read(frame_id).numpy().tobytes() for frame_id in dataset.train.ids}) == 3
    ensure(dataset, progress=steps)
    assert steps.seen == []


def test_only_missing_maps_are_made(dataset: Dataset) -> None:
    store = ensure(dataset)
    kept = {path: path.stat().st_mtime_ns for path in store.folder.glob("*.npy")}
    store.path(dataset.val.ids[0]).unlink()
    steps = Steps()
    ensure(dataset, progress=steps)
    assert steps.seen == [(0, 1), (1, 1)]
    changed = [path for path, written in kept.items() if path.stat().st_mtime_ns != written]
    assert changed == [store.path(dataset.val.ids[0])]


def test_a_stopped_extraction_keeps_what_it_made(dataset: Dataset) -> None:
    (dataset.root / "2D/scene0002_00/color/0.jpg").unlink()
    with pytest.raises(DitrError, match="no such file"):
        ensure(dataset)
    store = extract.FeatureStore(store_folder(spec=SPEC, entry=ENTRY, dataset=dataset), shape=(32, 3, 4))
    assert store.missing(dataset.train.ids) == [dataset.train.ids[2]]


def test_the_folder_follows_everything_that_changes_a_map_and_nothing_else(dataset: Dataset) -> None:
    pretrained = PretrainedWeights(kind="pretrained", file="a.pth", url="https://example.org/a")
    moved = pretrained.model_copy(update={"url": "https://example.org/b"})

    def folder(spec: FeatureSpec = SPEC, name: str = "made", **changes: object) -> Path:
        of = Dataset(name=name, root=dataset.root, digest=dataset.digest, splits=dataset.splits)
        return store_folder(spec=spec, entry=ENTRY.model_copy(update=changes), dataset=of)

    def changed(**values: object) -> Path:
        return folder(SPEC.model_copy(update=values))

    same = [
        folder(),
        folder(description="other words", licence="other", sizes=((14, 14),)),
        changed(sampling="nearest"),
        changed(mode="online"),
        changed(weights=ENTRY.weights),
    ]
    assert len(set(same)) == 1
    assert folder(weights=pretrained) == folder(weights=moved)
    seeded = SeededWeights(kind="seeded", seed=6)
    assert folder(weights=seeded) == changed(weights=seeded)
    others = [
        folder(),
        folder(weights=pretrained),
        folder(weights=pretrained.model_copy(update={"sha256": "0" * 64})),
        folder(weights=seeded),
        folder(mean=(0.5, 0.5, 0.5)),
        folder(timm_args={**ENTRY.timm_args, "depth": 4}),
        folder(name="other"),
        changed(input_size=(56, 56)),
        changed(resize="pad"),
        changed(layers=(-2,)),
        changed(layers=(-1, -2)),
        changed(layers=(-2, -1)),
        changed(dtype="bfloat16"),
        changed(weights=FileWeights(kind="file", path="a.pth")),
        changed(weights=HubWeights(kind="hub")),
    ]
    assert len(set(others)) == len(others)


def test_the_manifest_says_what_the_maps_are(dataset: Dataset) -> None:
    store = ensure(dataset)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert VitEntry.model_validate(manifest["entry"]) == ENTRY
    assert manifest["input_size"] == [42, 56]
    assert manifest["dataset_digest"] == dataset.digest
    assert manifest["shape"] == [32, 3, 4]
    assert manifest["computed_in"] == "float32"
    assert manifest["computed_on"] == ["cpu, plain"]
    assert manifest["frames"] == 5


@pytest.mark.parametrize("content", ["", "{}", '{"source": "sou', "[1]", "\x00" * 40])
def test_maps_whose_manifest_is_damaged_are_made_again(content: str, dataset: Dataset) -> None:
    store = ensure(dataset)
    ids = (*dataset.train.ids, *dataset.val.ids)
    before = [store.read(frame_id) for frame_id in ids]
    store.write(ids[0], torch.zeros(store.shape))  # whoever made it: nothing says by which weights
    (store.folder / "manifest.json").write_text(content)
    again = ensure(dataset)
    assert again.manifest() is not None
    assert all(torch.equal(again.read(frame_id), one) for frame_id, one in zip(ids, before, strict=True))


def test_maps_of_other_weights_are_never_mixed_in(dataset: Dataset) -> None:
    store = ensure(dataset)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    (store.folder / "manifest.json").write_text(json.dumps({**manifest, "weights_digest": "0" * 32}))
    store.path(dataset.val.ids[0]).unlink()
    with pytest.raises(DitrError, match="other weights") as raised:
        ensure(dataset)
    assert raised.value.code == Code.FEATURES
    assert store.missing(dataset.val.ids) == [dataset.val.ids[0]]


def test_a_disk_that_is_too_small_is_known_before_anything_is_computed(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "load_source", None)
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda path: SimpleNamespace(free=extract.SPARE_BYTES + 100))
    with pytest.raises(DitrError, match=r"5 maps need 0.00 GiB, 0.50 GiB are free, of which 0.50 GiB") as raised:
        ensure(dataset)
    assert raised.value.code == Code.ENVIRONMENT
    assert "DITR_CACHE" in raised.value.fix


def test_precomputed_maps_are_looked_for_and_nothing_is_made(dataset: Dataset) -> None:
    entry = PrecomputedEntry(
        kind="precomputed", path="maps", channels=4, rows=3, columns=4, covers=(48, 64), licence="none"
    )
    spec = FeatureSpec(source="theirs")
    for number, frame_id in enumerate([*dataset.train.ids, *dataset.val.ids]):
        file = dataset.root / "maps" / frame_id.rpartition("_")[0] / "0.pt"
        file.parent.mkdir(parents=True)
        torch.save(torch.full((4, 3, 4), float(number)), file)
    frames = [dataset.train, dataset.val]
    made = extract.extract(frames, spec=spec, entry=entry, dataset=dataset, device=CPU)
    assert (made.made, made.present) == (0, 5)
    assert float(made.maps.read(dataset.val.ids[1]).max()) == 4
    assert not (extract.paths.cache_dir() / "features").exists()
    file.unlink()
    with pytest.raises(DitrError, match="no precomputed 2D feature map"):
        ensure_features(frames, spec=spec, entry=entry, dataset=dataset, device=CPU)


def swap_in(folder: Path, seed: int) -> None:
    """A weight file under the one name that the entry knows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(create(ENTRY).state_dict(), folder / "tiny.pth")


def test_a_weight_file_swapped_under_its_name_is_noticed_though_no_map_is_missing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITR_WEIGHTS", str(tmp_path))
    weights = PretrainedWeights(kind="pretrained", file="tiny.pth", url="https://example.org/tiny.pth")
    entry = ENTRY.model_copy(update={"weights": weights})
    swap_in(tmp_path, seed=1)
    ensure(dataset, entry=entry)
    ensure(dataset, entry=entry)
    swap_in(tmp_path, seed=2)
    with pytest.raises(DitrError, match="other weights"):
        ensure(dataset, entry=entry)
    swap_in(tmp_path, seed=1)
    ensure(dataset, entry=entry)
    (tmp_path / "tiny.pth").unlink()
    ensure(dataset, entry=entry)  # the maps are still those of the weights in the manifest


def test_seeded_weights_are_compared_again_by_other_versions_of_their_makers(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ensure(dataset)
    monkeypatch.setattr(extract, "weights_stamp", lambda weights: "seed 5, torch 9, timm 9")
    ensure(dataset)  # the same weights, whatever made them
    manifest = store.manifest()
    assert manifest is not None
    assert manifest["weights_stamp"] == "seed 5, torch 9, timm 9"
    store.write_manifest({**manifest, "weights_digest": "0" * 32, "weights_stamp": "seed 5, torch 8, timm 8"})
    with pytest.raises(DitrError, match="other weights"):
        ensure(dataset)
