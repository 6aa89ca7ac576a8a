"""Small frames that a model can learn from, without files."""

from collections.abc import Callable

import pytest

from ditr.data.samples import SampleSet
from ditr.spec.models import AugmentationSpec
from tests.reference.synthetic_frames import BoxFrames


@pytest.fixture
def make_samples() -> Callable[..., SampleSet]:
    """Real samples, augmented or not, of ``count`` frames of boxes."""

    def make(count: int, *, points: int = 400, augmented: bool = True) -> SampleSet:
        return SampleSet(
            BoxFrames(count, points=points),  # type: ignore[arg-type]
            seed=3,
            voxel_size_m=0.05,
            augmentation=AugmentationSpec(elastic=None) if augmented else None,
            tokens=None,
        )

    return make
