"""Small frames that a model can learn from, made from their index alone, with 2D features; what steps leave behind."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ditr.data.class_table import SCANNET200
from ditr.data.frame import Frame
from ditr.geometry.camera import Intrinsics

CHANNELS = 8
_CAMERA = Intrinsics(fx=500.0, fy=500.0, cx=320.0, cy=240.0, width=640, height=480)
_SPARSE = ("SparseTensor", "TensorField", "CoordinateManager")
_FROM_ABOVE = np.diag([1.0, -1.0, -1.0, 1.0])
_FROM_ABOVE[2, 3] = 4.5


class BoxFrames:
    """As a ``FrameSet``: frames of four boxes on a floor; each box is a thing of two superpoints and a colour.

    The camera looks down from where every point is in its image.
    """

    root = Path("no/such/folder")
    classes = SCANNET200

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
            pose_c2w=_FROM_ABOVE.copy(),
            intrinsics=_CAMERA,
        )


class SeenFrames(BoxFrames):
    """Box frames with images of noise, whose pixels give the points their colours."""

    def image(self, index: int) -> np.ndarray:
        rng = np.random.default_rng(500 + index)
        return rng.integers(0, 256, (_CAMERA.height, _CAMERA.width, 3), dtype=np.uint8)

    def frame(self, index: int) -> Frame:
        frame = super().frame(index)
        u, v = self.pixels(frame.points).round().astype(int).T
        return replace(frame, points=np.concatenate((frame.points[:, :3], self.image(index)[v, u]), axis=1))

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) of the camera that looks straight down: x is to the right and y up."""
        scale = _CAMERA.fx / (_FROM_ABOVE[2, 3] - points[:, 2].astype(np.float64))
        return np.stack([scale * points[:, 0] + _CAMERA.cx, _CAMERA.cy - scale * points[:, 1]], axis=1)


def tokens(frame_id: str) -> Tensor:
    """(C, 6, 8) float16, from the frame's number alone."""
    generator = torch.Generator().manual_seed(int(frame_id.rpartition("_")[2]))
    return torch.randn(CHANNELS, 6, 8, generator=generator).half()


def live_sparse_objects() -> list[str]:
    """Types of the sparse library's objects that something still holds; nothing is collected before looking."""
    kept = [type(one) for one in gc.get_objects()]
    return [kind.__name__ for kind in kept if kind.__name__ in _SPARSE and kind.__module__.startswith("Minkowski")]
