"""Small frames that a model can learn from, without files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ditr.data.frame import Frame
from ditr.data.samples import SampleSet
from ditr.geometry.camera import Intrinsics
from ditr.spec.models import AugmentationSpec


class BoxFrames:
    """Frames of four boxes on a floor; each box is a thing of two superpoints and a colour of its own."""

    def __init__(self, count: int, *, points: int) -> None:
        self.ids = tuple(f"scene0000_00_{i}" for i in range(count))
        self._points = points

    def __len__(self) -> int:
        return len(self.ids)

    def frame(self, index: int) -> Frame:
        rng = np.random.default_rng(index)
        box = rng.integers(5, size=self._points)  # 0 is the floor
        within = rng.uniform(size=(self._points, 3)) * 0.3
        origin = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.3], [-0.5, 0.0, 0.3], [0.0, 0.5, 0.3], [0.0, -0.5, 0.3]])
        xyz = origin[box] + np.where(box[:, None] == 0, [4.0, 4.0, 0.1] * (within - 0.15), within)
        rgb = 50.0 * box[:, None] + rng.uniform(0, 20, size=(self._points, 3))
        _, superpoints = np.unique(2 * box + (within[:, 0] > 0.15), return_inverse=True)
        return Frame(
            id=self.ids[index],
            scene="scene0000_00",
            points=np.concatenate((xyz, rgb), axis=1).astype(np.float32),
            superpoints=superpoints.astype(np.int64),
            instance_ids=box.astype(np.int64),
            semantic_ids=np.array([2, 4, 5, 6, 7])[box],
            image_path=Path("none.jpg"),
            pose_c2w=np.eye(4),
            intrinsics=Intrinsics(fx=500.0, fy=500.0, cx=320.0, cy=240.0, width=640, height=480),
        )


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
