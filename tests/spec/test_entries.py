"""What entries claim of the embedded data is what its generator makes."""

from __future__ import annotations

from ditr.data.dataset import Dataset
from ditr.spec.entries import SYNTHROOMS_IMAGE


def test_rules_know_the_size_of_the_embedded_images(tiny_dataset: Dataset) -> None:
    assert tiny_dataset.val.image(0).shape == (*SYNTHROOMS_IMAGE, 3)
