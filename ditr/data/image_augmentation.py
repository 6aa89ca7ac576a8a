"""Training augmentations of the image that 2D features are computed of (reference: DITR jitters colours alike)."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance

from ditr.spec.models import ImageAugmentationSpec

_HUES = 256
"""Steps of Pillow's colour circle."""


def jitter(image: np.ndarray, *, spec: ImageAugmentationSpec, rng: np.random.Generator) -> np.ndarray:
    """A (H, W, 3) uint8 RGB image in other light: brightness, contrast, saturation, then hue.

    All four are drawn from ``rng`` whatever the spec says, so that switching one off leaves the others as they were.
    What is drawn as "no change" changes no bit.
    """
    brightness, contrast, saturation = (
        rng.uniform(1 - spread, 1 + spread) for spread in (spec.brightness, spec.contrast, spec.saturation)
    )
    shift = rng.uniform(-spec.hue, spec.hue)
    picture = Image.fromarray(image)
    picture = ImageEnhance.Brightness(picture).enhance(brightness)
    picture = ImageEnhance.Contrast(picture).enhance(contrast)
    picture = ImageEnhance.Color(picture).enhance(saturation)
    return np.asarray(_with_hue_shifted(picture, steps=round(shift * _HUES)))


def mirror(image: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (H, W, 3) image left to right, and where its (N, 2) pixels ``uv`` are then: each keeps its colour."""
    width = image.shape[1]
    return image[:, ::-1], np.stack([width - 1 - uv[:, 0], uv[:, 1]], axis=1)


def _with_hue_shifted(picture: Image.Image, *, steps: int) -> Image.Image:
    if not steps:
        return picture  # the way to HSV and back rounds
    hue, saturation, value = picture.convert("HSV").split()
    turned = hue.point([(old + steps) % _HUES for old in range(_HUES)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
