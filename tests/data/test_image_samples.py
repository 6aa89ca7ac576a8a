"""Samples that hold their frame's image: what is augmented of it, and that points still read their own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ditr.data.augmentation import augment
from ditr.data.batch import Sample
from ditr.data.loading import batches
from ditr.data.samples import SampleSet, normalise_colour
from ditr.errors import DitrError
from ditr.geometry.sampling import sample_map
from ditr.seeds import derive_seed
from ditr.spec.models import AugmentationSpec, ImageAugmentationSpec
from tests.reference.synthetic_frames import BoxFrames, SeenFrames

COUNT = 4
FRAMES = SeenFrames(COUNT, points=300)
RIGID = AugmentationSpec(elastic=None)
NO_JITTER = ImageAugmentationSpec(brightness=0, contrast=0, saturation=0, hue=0)
EPOCHS = 6


def training_set(
    image_augmentation: ImageAugmentationSpec | None = NO_JITTER,
    *,
    frames: BoxFrames = FRAMES,
    augmentation: AugmentationSpec | None = RIGID,
    seed: int = 0,
    epoch: int = 0,
    images: bool = True,
) -> SampleSet:
    samples = SampleSet(
        frames,  # type: ignore[arg-type]
        seed=seed,
        voxel_size_m=0.05,
        augmentation=augmentation,
        tokens=None,
        images=images,
        image_augmentation=image_augmentation,
    )
    samples.set_epoch(epoch)
    return samples


def image_of(sample: Sample) -> np.ndarray:
    assert sample.image is not None
    return sample.image.numpy()


def pairs() -> list[tuple[int, Sample, bool]]:
    """Samples of several epochs, and whether their points are mirrored by the sign of a volume that they span."""
    found = []
    for epoch in range(EPOCHS):
        for index in range(COUNT):
            sample, raw = (
                training_set(epoch=epoch).without_elastic()[index],
                FRAMES.frame(index).points[:, :3].astype(np.float64),
            )
            moved = sample.xyz.numpy().astype(np.float64)
            volumes = [np.linalg.det(xyz[[10, 60, 110]] - xyz[160]) for xyz in (raw, moved)]
            assert min(map(abs, volumes)) > 1e-5
            found.append((index, sample, volumes[0] * volumes[1] < 0))
    return found


def test_an_image_is_mirrored_exactly_when_the_points_are() -> None:
    seen = pairs()
    for index, sample, mirrored in seen:
        expected = FRAMES.image(index)[:, ::-1] if mirrored else FRAMES.image(index)
        assert np.array_equal(image_of(sample), expected)
    assert 0 < sum(mirrored for *_, mirrored in seen) < len(seen)


def test_each_point_has_the_colour_of_its_pixel_mirrored_or_not() -> None:
    for index, sample, mirrored in pairs():
        assert sample.uv_valid.all()
        u, v = sample.uv.numpy().round().astype(int).T
        assert np.array_equal(sample.colour.numpy(), normalise_colour(image_of(sample)[v, u])), mirrored
        straight = FRAMES.pixels(FRAMES.frame(index).points)
        expected = np.stack([639 - straight[:, 0], straight[:, 1]], axis=1) if mirrored else straight
        np.testing.assert_allclose(sample.uv.numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_point_of_a_mirrored_image_reads_the_token_of_the_same_surface(mode: str) -> None:
    def read(sample: Sample) -> Tensor:
        tokens = avg_pool2d(torch.from_numpy(image_of(sample).copy()).permute(2, 0, 1).double(), 20)
        return sample_map(tokens, sample.uv, map_hw=sample.map_hw, mode=mode)  # type: ignore[arg-type]

    plain = [training_set(None, augmentation=None)[index] for index in range(COUNT)]
    for index, sample, _ in pairs():
        torch.testing.assert_close(read(sample), read(plain[index]), rtol=0, atol=0.02)


def test_points_off_the_image_hold_zero_in_a_mirrored_image_too() -> None:
    class Wide(SeenFrames):
        def frame(self, index: int) -> object:  # type: ignore[override]
            frame = super().frame(index)
            frame.points[:50, 0] += 40
            return frame

    samples = [training_set(frames=Wide(1, points=90), epoch=epoch)[0] for epoch in range(EPOCHS)]
    assert len({image_of(sample).tobytes() for sample in samples}) == 2, "mirrored and not"
    for sample in samples:
        assert sample.uv_valid.tolist() == [False] * 50 + [True] * 40
        assert not sample.uv[:50].any()


def test_points_are_the_same_numbers_with_and_without_image_augmentation() -> None:
    spec = AugmentationSpec()
    for epoch in range(3):
        each = [
            training_set(augmented, augmentation=spec, epoch=epoch, images=images)[1]
            for augmented, images in ((None, False), (None, True), (NO_JITTER, True), (ImageAugmentationSpec(), True))
        ]
        assert all(torch.equal(one.xyz, each[0].xyz) for one in each)
        assert {one.seed for one in each} == {each[0].seed}


def test_without_mirroring_no_image_is_mirrored_and_without_images_there_are_none() -> None:
    still = NO_JITTER.model_copy(update={"mirror_with_points": False})
    for epoch in range(EPOCHS):
        assert np.array_equal(image_of(training_set(still, epoch=epoch)[2]), FRAMES.image(2))
        assert np.array_equal(image_of(training_set(None, epoch=epoch)[2]), FRAMES.image(2))
    assert training_set(None, images=False)[0].image is None


def test_jitter_repeats_with_seed_epoch_and_frame_and_differs_with_each() -> None:
    spec = ImageAugmentationSpec(mirror_with_points=False)

    def mean(index: int, **named: int) -> float:
        return float(image_of(training_set(spec, **named)[index]).mean())  # type: ignore[arg-type]

    assert mean(0) == mean(0)
    others = [mean(0), mean(0, seed=1), mean(0, epoch=1), mean(1)]
    assert min(abs(a - b) for i, a in enumerate(others) for b in others[:i]) > 0.2, "noise alone differs by less"


def test_images_do_not_depend_on_the_number_of_workers() -> None:
    samples = training_set(ImageAugmentationSpec(), epoch=2)
    alone, helped = (list(batches(samples, batch_size=3, shuffle=True, workers=workers)) for workers in (0, 2))
    for one, two in zip(alone, helped, strict=True):
        for a, b in zip(one, two, strict=True):
            assert a.frame_id == b.frame_id
            assert np.array_equal(image_of(a), image_of(b))
            assert torch.equal(a.uv, b.uv)


def test_images_alone_can_be_augmented_and_such_samples_are_no_test() -> None:
    samples = training_set(ImageAugmentationSpec(mirror_with_points=False), augmentation=None)
    assert samples.augmented
    assert not np.array_equal(image_of(samples[0]), FRAMES.image(0))
    np.testing.assert_array_equal(samples[0].xyz.numpy(), FRAMES.frame(0).points[:, :3])
    assert not training_set(None, augmentation=None).augmented


def test_a_frame_that_sees_none_of_its_points_is_an_error_with_images_too() -> None:
    class Away(SeenFrames):
        def frame(self, index: int) -> object:  # type: ignore[override]
            frame = super().frame(index)
            frame.points[:, 2] += 9
            return frame

    with pytest.raises(DitrError, match="none of the frame's 90 points"):
        training_set(frames=Away(1, points=90))[0]


def test_one_flip_mirrors_and_two_turn() -> None:
    points = FRAMES.frame(0).points[:, :3]
    spec = AugmentationSpec(rotation_rad=0, scale=(1, 1), translation_std_m=0, elastic=None)
    for epoch in range(20):
        rng = np.random.default_rng(derive_seed(0, epoch))
        found = augment(points, spec=spec, voxel_size_m=0.05, rng=rng)
        signs = np.sign(found.xyz[0, :2] * points[0, :2])
        assert found.mirrored == (signs.prod() < 0)
