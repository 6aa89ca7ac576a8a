"""Maps computed in the step are the maps that would have been stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ditr.data.batch import Batch, Sample, collate
from ditr.data.samples import SampleSet
from ditr.errors import Code, DitrError
from ditr.features.online_maps import OnlineMaps
from ditr.features.sources import FeatureSource, load_source
from ditr.features.store import FeatureStore
from ditr.spec.feature_maps import map_covers, map_shape
from ditr.spec.models import AugmentationSpec, FeatureSpec, ImageAugmentationSpec, SeededWeights
from ditr.spec.registry import Registry
from tests.reference.synthetic_frames import SeenFrames

ENTRY = Registry().features("vit_mini14_reg4")
SPEC = FeatureSpec(
    source="vit_mini14_reg4",
    weights=SeededWeights(kind="seeded", seed=0),
    mode="online",
    input_size=(112, 154),
    augmentation=ImageAugmentationSpec(brightness=0, contrast=0, saturation=0, hue=0, mirror_with_points=False),
)
CPU = torch.device("cpu")
FRAMES = SeenFrames(3, points=60)


def source(spec: FeatureSpec = SPEC) -> FeatureSource:
    return load_source(spec, entry=ENTRY, device=CPU)  # type: ignore[arg-type]


def samples_of(spec: FeatureSpec = SPEC, *, augmented: bool = True, store: FeatureStore | None = None) -> SampleSet:
    return SampleSet(
        FRAMES,  # type: ignore[arg-type]
        seed=0,
        voxel_size_m=0.05,
        augmentation=AugmentationSpec() if augmented else None,
        tokens=store.read if store else None,
        map_hw=map_covers(spec, ENTRY),
        images=store is None,
        image_augmentation=spec.augmentation if augmented and store is None else None,
    )


def batch_of(samples: SampleSet) -> Batch:
    return collate([samples[index] for index in range(len(samples))])


def maps_of(batch: Batch) -> list[Tensor]:
    assert all(sample.tokens is not None and sample.image is None for sample in batch)
    return [sample.tokens for sample in batch if sample.tokens is not None]


@pytest.mark.parametrize("resize", ["resize", "pad"])
def test_an_image_that_nothing_changed_gives_the_stored_map_bit_for_bit(tmp_path: Path, resize: str) -> None:
    spec = SPEC.model_copy(update={"resize": resize, "input_size": (490, 644) if resize == "pad" else (112, 154)})
    store = FeatureStore(tmp_path, shape=map_shape(spec, ENTRY))
    for index, frame_id in enumerate(FRAMES.ids):
        store.write(frame_id, source(spec).encode(FRAMES.image(index)[None])[0])
    encode, stored = OnlineMaps(source(spec)), samples_of(spec, store=store)
    for index in range(len(FRAMES)):
        (sample,) = encode(Batch(samples=(samples_of(spec)[index],)))
        kept = stored[index]
        assert sample.tokens is not None
        assert sample.tokens.dtype == torch.float16
        assert torch.equal(sample.tokens, kept.tokens)  # type: ignore[arg-type]
        assert torch.equal(sample.uv, kept.uv)
        assert sample.map_hw == kept.map_hw == ((490, 644) if resize == "pad" else (480, 640))


def test_a_batch_gives_the_maps_of_its_images_one_by_one_but_for_the_last_bits_of_float16() -> None:
    encode, batch = OnlineMaps(source()), batch_of(samples_of())
    alone = [maps_of(encode(Batch(samples=(sample,))))[0] for sample in batch]
    for together, one in zip(maps_of(encode(batch)), alone, strict=True):
        torch.testing.assert_close(together, one, rtol=2e-3, atol=2e-3)
    assert not torch.allclose(alone[0], alone[1], rtol=0.1, atol=0.1), "other images, other maps"


class Means:
    """Instead of a source: each image's mean colour everywhere; remembers the stacks that it got."""

    def __init__(self) -> None:
        self.stacks: list[tuple[int, ...]] = []

    def encode(self, images: Tensor) -> Tensor:
        self.stacks.append(tuple(images.shape))
        return images.float().mean(dim=(1, 2))[:, :, None, None].expand(-1, -1, 2, 3).half()


def test_images_of_one_size_are_encoded_together_and_every_sample_keeps_its_own_map() -> None:
    means, samples = Means(), list(batch_of(samples_of()))
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (10, 12), (20, 30)]
    images = [torch.from_numpy(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    mixed = [replace(sample, image=image) for sample, image in zip(samples, images, strict=True)]
    found = OnlineMaps(means)(collate(mixed))  # type: ignore[arg-type]
    assert sorted(means.stacks) == [(1, 10, 12, 3), (2, 20, 30, 3)]
    for sample, before, image in zip(found, mixed, images, strict=True):
        assert sample.frame_id == before.frame_id
        assert sample.tokens is not None
        torch.testing.assert_close(sample.tokens[:, 1, 2].float(), image.float().mean(dim=(0, 1)), rtol=1e-3, atol=0)


def test_a_source_that_overflows_names_the_frame() -> None:
    class Overflowing(Means):
        def encode(self, images: Tensor) -> Tensor:
            maps = super().encode(images).clone()
            maps[1, 0, 0, 0] = torch.inf
            return maps

    with pytest.raises(DitrError, match="not finite in float16") as raised:
        OnlineMaps(Overflowing())(batch_of(samples_of()))  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.where) == (Code.FEATURES, FRAMES.ids[1])


def test_a_sample_without_an_image_is_a_bug_and_not_zeros() -> None:
    sample: Sample = replace(samples_of()[0], image=None)
    with pytest.raises(AssertionError, match="hold their image"):
        OnlineMaps(source())(Batch(samples=(sample,)))
