"""Colours in other light, held against closed forms and another library's hue."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2hsv

from ditr.data.image_augmentation import jitter, mirror
from ditr.spec.models import ImageAugmentationSpec

IMAGE = np.random.default_rng(5).integers(40, 200, (24, 32, 3)).astype(np.uint8)
SPREADS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
GREY = np.array([0.299, 0.587, 0.114])


def only(**spreads: float) -> ImageAugmentationSpec:
    return ImageAugmentationSpec(**{**dict.fromkeys(SPREADS, 0.0), **spreads})  # type: ignore[arg-type]


def run(spec: ImageAugmentationSpec, *, seed: int = 3) -> np.ndarray:
    return jitter(IMAGE, spec=spec, rng=np.random.default_rng(seed)).astype(int)


def drawn(*, seed: int = 3) -> tuple[float, float, float, float]:
    """The factors and the shift, in the order in which they are drawn."""
    rng = np.random.default_rng(seed)
    factors = tuple(rng.uniform(1 - SPREADS[name], 1 + SPREADS[name]) for name in list(SPREADS)[:3])
    return (*factors, rng.uniform(-SPREADS["hue"], SPREADS["hue"]))  # type: ignore[return-value]


def test_no_change_changes_no_bit() -> None:
    assert all(np.array_equal(run(only(), seed=seed), IMAGE) for seed in range(20))


@pytest.mark.parametrize("seed", range(6))
def test_each_change_alone_is_its_closed_form(seed: int) -> None:
    brightness, contrast, saturation, _ = drawn(seed=seed)
    grey = (IMAGE @ GREY)[..., None]
    expected = {
        "brightness": brightness * IMAGE,
        "contrast": grey.mean() + contrast * (IMAGE - grey.mean()),
        "saturation": grey + saturation * (IMAGE - grey),
    }
    for name, values in expected.items():
        found = run(only(**{name: SPREADS[name]}), seed=seed)
        assert np.abs(found - values.clip(0, 255)).max() <= 1.5, name


def test_all_changes_together_are_plainly_seen() -> None:
    changed = [np.abs(run(ImageAugmentationSpec(), seed=seed) - IMAGE).mean() for seed in range(20)]
    assert 10 < np.mean(changed) < 60


@pytest.mark.parametrize("seed", range(6))
def test_hue_turns_by_its_share_of_the_circle_and_keeps_value(seed: int) -> None:
    shift = drawn(seed=seed)[3]
    found = run(only(hue=SPREADS["hue"]), seed=seed)
    turned = (rgb2hsv(found.astype(np.uint8))[..., 0] - rgb2hsv(IMAGE)[..., 0] - shift + 0.5) % 1 - 0.5
    colourful = rgb2hsv(IMAGE)[..., 1] > 0.3  # the hue of a grey pixel is noise
    assert np.abs(turned[colourful]).mean() < 0.01
    assert np.abs(found.max(axis=2) - IMAGE.max(axis=2)).max() <= 1


def test_a_change_that_is_switched_off_leaves_the_later_ones_as_they_were() -> None:
    bright, hue = only(brightness=0.4), only(hue=0.1)
    one_after_the_other = jitter(run(bright).astype(np.uint8), spec=hue, rng=np.random.default_rng(3))
    assert np.array_equal(run(only(brightness=0.4, hue=0.1)), one_after_the_other)


def test_brightness_fills_its_range() -> None:
    grey = np.full((2, 2, 3), 100, np.uint8)
    spec = only(brightness=0.4)
    seen = [int(jitter(grey, spec=spec, rng=np.random.default_rng(seed))[0, 0, 0]) for seed in range(300)]
    assert 60 <= min(seen) < 63
    assert 137 < max(seen) <= 140


def test_a_mirrored_image_keeps_the_colour_of_each_pixel() -> None:
    uv = np.array([[0, 0], [31, 0], [7, 23], [10, 4]])
    mirrored, moved = mirror(IMAGE, uv)
    assert np.array_equal(mirrored[moved[:, 1], moved[:, 0]], IMAGE[uv[:, 1], uv[:, 0]])
    assert np.array_equal(mirrored[:, 0], IMAGE[:, 31])
    again, back = mirror(mirrored, moved)
    assert np.array_equal(again, IMAGE)
    assert np.array_equal(back, uv)
