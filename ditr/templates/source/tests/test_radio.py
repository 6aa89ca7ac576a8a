"""The source gives what its registry entry says, the same each time, with every token at its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ditr
from ditr.features.sources import FeatureSource, load_source
from ditr.spec.registry import Registry


@pytest.fixture(scope="module")
def source() -> FeatureSource:
    spec = ditr.load_spec(Path(__file__).parents[1] / "specs" / "radio.yaml")
    assert spec.features is not None
    return load_source(spec.features, entry=Registry().features("radio"), device=torch.device("cpu"))


def test_a_map_has_the_size_that_the_entry_says_and_is_the_same_each_time(source: FeatureSource) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 480, 640, 3), dtype=np.uint8)
    maps = source.encode(image)
    assert maps.shape == (1, 64, 30, 40)
    assert torch.isfinite(maps).all()
    assert torch.equal(maps, source.encode(image))


def test_the_token_of_painted_pixels_changes_most(source: FeatureSource) -> None:
    images = np.random.default_rng(1).integers(0, 256, (1, 480, 640, 3), dtype=np.uint8).repeat(2, axis=0)
    images[1, 16 * 11 : 16 * 12, 16 * 27 : 16 * 28] = 255 - images[1, 16 * 11 : 16 * 12, 16 * 27 : 16 * 28]
    before, after = source.encode(images).float()
    assert divmod(int((after - before).norm(dim=0).argmax()), 40) == (11, 27)
