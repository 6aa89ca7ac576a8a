from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from ditr.data.batch import Batch, Sample
from ditr.data.block import Block
from ditr.data.frame import Frame
from ditr.data.info_pickle import FrameInfo, InfoFile
from ditr.data.loading import batch_indices, batches
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import INSTANCES, POINTS, SEMANTICS, SUPERPOINTS, FrameSet
from ditr.errors import Code, DitrError
from ditr.features.store import FeatureStore
from ditr.geometry.camera import SCANNET_SV_INTRINSICS, backproject
from ditr.spec.models import AugmentationSpec

COUNT = 400
SHAPE = (2, 3, 4)


def write_frames(root: Path, number: int, *, looking_away: bool = False) -> FrameSet:
    """Frames whose points are back-projected from integer pixels of a turned and shifted camera."""
    infos = []
    for folder in (POINTS, SUPERPOINTS, INSTANCES, SEMANTICS):
        (root / folder).mkdir(parents=True)
    for index in range(number):
        rng = np.random.default_rng(index)
        pose = np.eye(4)
        pose[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        pose[:3, 3] = rng.normal(size=3)
        depth = rng.uniform(0.5, 4, COUNT) * (-1 if looking_away else 1)
        xyz = backproject(pixels(index), depth, pose_c2w=pose, intrinsics=SCANNET_SV_INTRINSICS)
        name = f"scene0000_{index:02d}_0.bin"
        np.concatenate([xyz, rng.uniform(0, 255, (COUNT, 3))], axis=1).astype(np.float32).tofile(root / POINTS / name)
        superpoints = np.arange(COUNT) // 10
        superpoints.tofile(root / SUPERPOINTS / name)
        (superpoints // 4).tofile(root / INSTANCES / name)
        np.full(COUNT, 4).tofile(root / SEMANTICS / name)
        infos.append(
            FrameInfo(
                scene=f"scene0000_{index:02d}",
                number="0",
                points_file=name,
                superpoints_file=name,
                instances_file=name,
                semantics_file=name,
                image=f"2D/scene0000_{index:02d}/color/0.jpg",
                pose_c2w=pose,
                axis_align=np.eye(4),
            )
        )
    infos_of_split = InfoFile(dataset="scannet200_sv", categories={}, frames=tuple(infos))
    return FrameSet(root, infos=infos_of_split, intrinsics=SCANNET_SV_INTRINSICS)


def pixels(index: int) -> np.ndarray:
    return np.random.default_rng(1000 + index).integers(0, [640, 480], (COUNT, 2)).astype(np.float64)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> FrameSet:
    return write_frames(tmp_path_factory.mktemp("frames"), 7)


@pytest.fixture(scope="module")
def store(frames: FrameSet, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    store = FeatureStore(tmp_path_factory.mktemp("store"), shape=SHAPE)
    for number, frame_id in enumerate(frames.ids):
        store.write(frame_id, torch.full(SHAPE, float(number)))
    return store


def training_set(frames: FrameSet, *, seed: int = 0, store: FeatureStore | None = None) -> SampleSet:
    tokens = None if store is None else store.read
    return SampleSet(frames, seed=seed, voxel_size_m=0.02, augmentation=AugmentationSpec(), tokens=tokens)


def evaluation_set(frames: FrameSet) -> SampleSet:
    return SampleSet(frames, seed=0, voxel_size_m=0.02, augmentation=None, tokens=None)


class WithoutBackground:
    """The frames, with every point on one of three chairs."""

    def __init__(self, frames: FrameSet) -> None:
        self.ids, self._frames = frames.ids, frames

    def __len__(self) -> int:
        return len(self._frames)

    def frame(self, index: int) -> Frame:
        frame = self._frames.frame(index)
        points = np.arange(len(frame.points))
        return dataclasses.replace(frame, instance_ids=points % 3 + 7, semantic_ids=np.full(len(points), 2))


def values(sample: Sample) -> dict[str, object]:
    """Every value of a sample, tensors as bytes, so that two samples compare bit for bit."""
    flat = {**vars(sample), **{f"targets.{name}": value for name, value in vars(sample.targets).items()}}
    del flat["targets"]
    return {k: (v.shape, v.numpy().tobytes()) if isinstance(v, torch.Tensor) else v for k, v in flat.items()}


def test_pixels_of_raw_points_are_the_ones_they_came_from_and_augmentation_leaves_them_alone(frames: FrameSet) -> None:
    for index in range(len(frames)):
        plain, augmented = evaluation_set(frames)[index], training_set(frames)[index]
        np.testing.assert_allclose(plain.uv.numpy(), pixels(index), atol=0.05)
        assert plain.uv_valid.all()
        assert torch.equal(plain.uv, augmented.uv)
        assert torch.equal(plain.uv_valid, augmented.uv_valid)
        assert (plain.xyz - augmented.xyz).abs().max() > 0.01


def test_points_off_the_image_are_marked_counted_and_hold_zero(tmp_path: Path) -> None:
    frames = write_frames(tmp_path, 1)
    path = tmp_path / POINTS / f"{frames.ids[0]}.bin"
    points = np.fromfile(path, np.float32).reshape(-1, 6)
    pose = frames.frame(0).pose_c2w
    points[:40, :3] = pose[:3, :3] @ [0, 0, -1] + pose[:3, 3]  # behind the camera
    points[40:100, :3] = pose[:3, :3] @ [9, 0, 1] + pose[:3, 3]  # in front of it, to the right of the image
    points.tofile(path)
    sample = evaluation_set(frames)[0]
    assert sample.uv_valid.tolist() == [False] * 100 + [True] * 300
    assert not sample.uv[:100].any()
    assert (sample.depth_ok_ratio, sample.boundary_ok_ratio) == (0.9, 0.75)


def test_evaluation_moves_nothing(frames: FrameSet) -> None:
    sample, raw = evaluation_set(frames)[3], frames.frame(3)
    np.testing.assert_array_equal(sample.xyz.numpy(), raw.points[:, :3])
    assert sample.num_superpoints == COUNT // 10 == len(sample.targets.class_of_superpoint)


@pytest.mark.parametrize("augmentation", [None, AugmentationSpec()], ids=["evaluation", "training"])
def test_esams_lost_instance_is_missing_in_training_and_in_evaluation_alike(
    frames: FrameSet, augmentation: AugmentationSpec | None
) -> None:
    def truth(*, esam_compat: bool) -> Sample:
        samples = SampleSet(
            WithoutBackground(frames),  # type: ignore[arg-type]
            seed=0,
            voxel_size_m=0.02,
            augmentation=augmentation,
            tokens=None,
            esam_compat=esam_compat,
        )
        return samples[0]

    fixed, compat = truth(esam_compat=False), truth(esam_compat=True)
    assert fixed.targets.instance_of_point[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert compat.targets.instance_of_point[:6].tolist() == [-1, 0, 1, -1, 0, 1]
    assert torch.equal(fixed.xyz, compat.xyz), "nothing else changes"
    assert fixed.seed == compat.seed


def test_colours_are_normalised_by_the_fixed_statistics(frames: FrameSet) -> None:
    rgb = frames.frame(0).points[:, 3:].astype(np.float64) / 255
    expected = (rgb - [0.47793125906962, 0.4303257521323044, 0.3749598901421883]) / [
        0.2834475483823543,
        0.27566157565723015,
        0.27018971370874995,
    ]
    np.testing.assert_allclose(evaluation_set(frames)[0].colour.numpy(), expected, atol=1e-5)


def test_a_sample_depends_on_seed_epoch_and_frame_alone(frames: FrameSet) -> None:
    first, second = training_set(frames), training_set(frames)
    backwards = {index: values(second[index]) for index in reversed(range(len(frames)))}
    assert all(values(first[index]) == backwards[index] for index in range(len(frames)))
    second.set_epoch(1)
    assert second[0].seed != first[0].seed
    assert not torch.equal(second[0].xyz, first[0].xyz)
    assert not torch.equal(training_set(frames, seed=1)[0].xyz, first[0].xyz)


def test_each_frame_reads_its_own_tokens_and_a_3d_only_run_none(frames: FrameSet, store: FeatureStore) -> None:
    samples = training_set(frames, store=store)
    assert [float(samples[index].tokens[0, 0, 0]) for index in range(7)] == list(range(7))  # type: ignore[index]
    assert training_set(frames)[0].tokens is None


def test_a_missing_map_is_an_error_not_zeros(frames: FrameSet, tmp_path: Path) -> None:
    samples = training_set(frames, store=FeatureStore(tmp_path, shape=SHAPE))
    with pytest.raises(DitrError, match=frames.ids[2]):
        samples[2]


def test_a_frame_that_sees_none_of_its_points_is_an_error_with_2d_features_only(
    tmp_path: Path, store: FeatureStore
) -> None:
    frames = write_frames(tmp_path, 1, looking_away=True)
    with pytest.raises(DitrError, match="none of the frame's 400 points") as raised:
        training_set(frames, store=store)[0]
    assert raised.value.code == Code.FEATURES
    assert training_set(frames)[0].depth_ok_ratio == 0


def test_points_read_features_of_their_own_also_off_the_image_and_never_those_of_other_counts(tmp_path: Path) -> None:
    frames = write_frames(tmp_path, 1, looking_away=True)
    tables = {COUNT: torch.arange(COUNT).half()[None, None], 1: torch.full((1, 1, 1), 7.0), 5: torch.zeros(1, 1, 5)}

    def read(count: int) -> Sample:
        options = {"seed": 0, "voxel_size_m": 0.04, "augmentation": AugmentationSpec(), "per_point": True}
        return SampleSet(frames, tokens=lambda frame_id: tables[count], **options)[0]

    own = read(COUNT)
    assert own.tokens is not None
    assert own.tokens.flatten().tolist() == list(range(COUNT))
    assert own.uv_valid.all()
    assert own.map_hw is None
    one = read(1).tokens
    assert one is not None
    assert one.flatten().tolist() == [7] * COUNT
    with pytest.raises(DitrError, match="features of 5 points, and the frame has 400"):
        read(5)


def test_batches_do_not_depend_on_the_number_of_workers(frames: FrameSet, store: FeatureStore) -> None:
    samples = training_set(frames, store=store)
    samples.set_epoch(3)
    alone, helped = (list(batches(samples, batch_size=3, shuffle=True, workers=workers)) for workers in (0, 2))
    assert [len(batch) for batch in helped] == [3, 3, 1]
    for one, two in zip(alone, helped, strict=True):
        assert [values(sample) for sample in one] == [values(sample) for sample in two]


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_after_one_another_are_the_batches_of_each(frames: FrameSet, workers: int) -> None:
    def read(epoch: int, **more: int) -> list[list[dict[str, object]]]:
        samples = training_set(frames)
        samples.set_epoch(epoch)
        read = batches(samples, batch_size=3, shuffle=True, workers=workers, **more)
        return [[values(sample) for sample in batch] for batch in read]

    assert read(4, epochs=3, first_batch=1) == read(4)[1:] + read(5) + read(6)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_with_a_frame_is_told_the_same_by_a_worker(
    frames: FrameSet, tmp_path: Path, workers: int
) -> None:
    pending = batches(
        training_set(frames, store=FeatureStore(tmp_path, shape=SHAPE)), batch_size=2, shuffle=False, workers=workers
    )
    with pytest.raises(DitrError, match="no 2D feature map") as raised:
        next(pending)
    assert raised.value.code == Code.FEATURES
    assert frames.ids[0] in raised.value.where
    assert "run the spec again" in raised.value.fix


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_that_reaches_all_processes_does_not_lose_the_workers(frames: FrameSet, number: signal.Signals) -> None:
    # Of the terminal, or of a cluster; the parent wants to finish its step and save, so they have to carry on.
    pending = batches(training_set(frames), batch_size=1, shuffle=False, workers=2)
    seen = [next(pending).samples[0].frame_id for _ in range(2)]  # one of each worker: both have started
    for process in psutil.Process().children(recursive=True):
        if "forkserver" in " ".join(process.cmdline()):
            process.send_signal(number)
    assert seen + [batch.samples[0].frame_id for batch in pending] == list(frames.ids)


class InterruptsWhoReadsIt:
    """Its pickle raises SIGINT in the process that loads it: a worker that is just being born."""

    def __reduce__(self) -> tuple[object, ...]:
        return signal.raise_signal, (signal.SIGINT,)


def test_an_interrupt_while_workers_start_does_not_lose_them(frames: FrameSet) -> None:
    samples = training_set(frames)
    object.__setattr__(samples, "mine", InterruptsWhoReadsIt())
    read = [batch.samples[0].frame_id for batch in batches(samples, batch_size=1, shuffle=False, workers=2)]
    assert read == list(frames.ids)


def test_an_interrupted_epoch_continues_with_the_batches_that_were_left(frames: FrameSet) -> None:
    samples = training_set(frames)
    whole = [[sample.frame_id for sample in batch] for batch in batches(samples, batch_size=2, shuffle=True, workers=0)]
    rest = batches(samples, batch_size=2, shuffle=True, workers=0, first_batch=2)
    assert [[sample.frame_id for sample in batch] for batch in rest] == whole[2:]


def test_every_epoch_has_every_sample_once_in_another_order(frames: FrameSet) -> None:
    samples = training_set(frames)
    orders = []
    for epoch in range(3):
        of_epoch = batch_indices(samples, epoch=epoch, batch_size=3, shuffle=True)
        orders.append([i for batch in of_epoch for i in batch])
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert batch_indices(samples, epoch=0, batch_size=3, shuffle=False) == [[0, 1, 2], [3, 4, 5], [6]]


def test_samples_move_to_a_device_whole(frames: FrameSet) -> None:
    (moved,) = Batch(samples=(evaluation_set(frames)[0],)).to(torch.device("meta"))
    tensors = [value for part in (moved, moved.targets) for value in vars(part).values() if torch.is_tensor(value)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert len({tensor.untyped_storage()._cdata for tensor in tensors}) == 1, "one copy"


def test_a_batch_in_one_piece_of_memory_holds_what_its_samples_hold(frames: FrameSet, store: FeatureStore) -> None:
    samples = [training_set(frames, store=store)[index] for index in range(3)]
    samples[1] = dataclasses.replace(  # odd sizes, an empty tensor, one that is not contiguous
        samples[1],
        colour=samples[1].colour[:, ::2],
        uv_valid=samples[1].uv_valid[:7],
        image=torch.zeros(0, 5, 3, dtype=torch.uint8),
    )
    block = Block.of(samples)
    assert [values(sample) for sample in block.items()] == [values(sample) for sample in samples]
    samples[0].xyz.zero_()
    assert block.items()[0].xyz.any(), "a copy"
