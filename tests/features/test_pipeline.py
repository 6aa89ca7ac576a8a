from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ditr.data.dataset import Dataset
from ditr.errors import Code, DitrError
from ditr.features import decoding
from ditr.features.extract import ensure_features, extract, store_folder
from ditr.features.sources import FeatureSource, load_source
from ditr.features.store import FeatureStore
from ditr.progress import Progress, silent
from tests.reference.image_frames import ENTRY, SMALL, SPEC, WIDE, image_dataset, slow_extraction, slow_extractions

CPU = torch.device("cpu")


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("DITR_CACHE", str(tmp_path / "cache"))
    return image_dataset(tmp_path / "data", train=5, val=3, sizes=(SMALL, WIDE))


def ensure(dataset: Dataset, progress: Progress = silent) -> FeatureStore:
    frames = [dataset.train, dataset.val]
    maps = ensure_features(frames, spec=SPEC, entry=ENTRY, dataset=dataset, device=CPU, progress=progress)
    assert isinstance(maps, FeatureStore)
    return maps


def opened(dataset: Dataset) -> FeatureStore:
    return FeatureStore(store_folder(spec=SPEC, entry=ENTRY, dataset=dataset), shape=(32, 3, 4))


def require_whole(dataset: Dataset) -> int:
    """Every map that is there is that of its frame; nothing else lies about. Returns their number."""
    maps, source, count = opened(dataset), load_source(SPEC, entry=ENTRY, device=CPU), 0
    for frames in (dataset.train, dataset.val):
        for index, frame_id in enumerate(frames.ids):
            if maps.path(frame_id).exists():
                assert torch.equal(maps.read(frame_id), source.encode(frames.image(index)[None])[0])
                count += 1
    assert len(list(maps.folder.iterdir())) == count + 3  # lock, journal, manifest
    return count


def test_images_of_several_sizes_decoded_by_workers_give_the_same_maps(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "FEW", 1)
    monkeypatch.setattr(decoding.os, "sched_getaffinity", lambda _: {0, 1})
    batches = decoding._batches([decoding.ImageRequest(dataset.train, index) for index in range(5)], 2)
    assert batches == [[0, 2], [4], [1, 3]]
    ensure(dataset)
    assert require_whole(dataset) == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_stops_everything_and_its_frame_is_named(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(decoding, "FEW", 1)
    monkeypatch.setattr(decoding.os, "sched_getaffinity", lambda _: set(range(max(1, workers))))
    frame_id = dataset.train.ids[2]
    path = dataset.root / dataset.train.infos.frames[2].image
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DitrError, match="the image is damaged") as raised:
        ensure(dataset)
    assert raised.value.where == f"frame {frame_id}: {path}"
    assert raised.value.code == Code.DATASET
    assert "data check" in raised.value.fix
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ditr-maps")]
    maps = opened(dataset)
    for other in {*dataset.train.ids, *dataset.val.ids} - set(maps.missing([*dataset.train.ids, *dataset.val.ids])):
        assert other != frame_id
        maps.read(other)


def test_a_full_disk_stops_everything_and_the_same_command_goes_on(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FeatureStore.write
    full = dataset.train.ids[3]

    def until_full(store: FeatureStore, frame_id: str, tokens: Tensor) -> None:
        if frame_id == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(store, frame_id, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "write", until_full)
        with pytest.raises(DitrError, match="No space left on device") as raised:
            ensure(dataset)
    assert raised.value.code == Code.ENVIRONMENT
    assert raised.value.where.startswith(f"frame {full}: ")
    assert opened(dataset).missing([full])
    ensure(dataset)
    assert require_whole(dataset) == 8


def test_a_bug_in_the_source_is_told_with_the_frames_it_met(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: FeatureSource, images: Tensor) -> Tensor:
        raise RuntimeError("bad shapes")

    monkeypatch.setattr(FeatureSource, "encode", broken)
    with pytest.raises(RuntimeError, match="bad shapes") as raised:
        ensure(dataset)
    assert dataset.train.ids[0] in raised.value.__notes__[0]


def test_what_is_not_finite_is_refused_with_its_frame(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = FeatureSource.encode
    monkeypatch.setattr(FeatureSource, "encode", lambda source, images: encode(source, images) * float("nan"))
    with pytest.raises(DitrError, match="not finite in float16") as raised:
        ensure(dataset)
    assert "scene000" in raised.value.where
    assert not list(opened(dataset).folder.glob("*.npy"))


def test_an_extraction_that_is_stopped_leaves_whole_maps_and_goes_on(dataset: Dataset) -> None:
    def stopped(what: str, done: int, total: int) -> None:
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(dataset, stopped)
    assert require_whole(dataset) >= 2
    ensure(dataset)
    assert require_whole(dataset) == 8


def test_killed_again_and_again_it_goes_on_and_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = image_dataset(tmp_path / "data", train=50, val=10)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.reference.image_frames"])
    monkeypatch.setenv("DITR_CACHE", str(tmp_path / "killed"))
    maps = opened(dataset)
    kept: dict[str, tuple[int, bytes]] = {}
    pids: SimpleQueue[int] = context.SimpleQueue()
    process = context.Process(target=slow_extractions, args=(dataset, tmp_path / "killed", 4, pids))
    process.start()
    torn = 0
    for goal in (8, 20, 32, 44):
        pid = pids.get()
        while len(list(maps.folder.glob("*.npy"))) < goal or not list(maps.folder.glob(".*.npy.*")):
            time.sleep(0.001)  # until a file is half written
        os.kill(pid, signal.SIGKILL)
        assert pids.get() == -signal.SIGKILL
        torn += bool(list(maps.folder.glob(".*.npy.*")))
        found = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in maps.folder.glob("*.npy")}
        assert kept.items() <= found.items()  # nothing that was whole is written again
        kept = found
    process.join()
    assert torn >= 1
    made = extract([dataset.train, dataset.val], spec=SPEC, entry=ENTRY, dataset=dataset, device=CPU)
    assert made.made == 60 - len(kept)
    for name, (written, content) in kept.items():
        assert (maps.folder / name).stat().st_mtime_ns == written
        assert (maps.folder / name).read_bytes() == content
    monkeypatch.setenv("DITR_CACHE", str(tmp_path / "whole"))
    whole = ensure(dataset)
    assert {path.name: path.read_bytes() for path in maps.folder.glob("*.npy")} == {
        path.name: path.read_bytes() for path in whole.folder.glob("*.npy")
    }
    for folder in (maps.folder, whole.folder):
        names = {path.name for path in folder.iterdir()} - {path.name for path in folder.glob("*.npy")}
        assert names == {".lock", "manifest.json", "digests.xxh128"}
        assert len((folder / "digests.xxh128").read_text().splitlines()) == 60
    assert sorted((maps.folder / "digests.xxh128").read_text().splitlines()) == sorted(
        (whole.folder / "digests.xxh128").read_text().splitlines()
    )


def test_of_two_processes_at_once_one_works_and_the_other_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITR_CACHE", str(tmp_path / "cache"))
    dataset = image_dataset(tmp_path / "data", train=20, val=10)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.reference.image_frames"])
    counts = context.SimpleQueue()
    both = [context.Process(target=slow_extraction, args=(dataset, tmp_path / "cache", counts)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted((counts.get(), counts.get())) == [0, 30]
    assert require_whole(dataset) == 30
