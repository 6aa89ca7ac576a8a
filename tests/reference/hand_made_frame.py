"""A frame of six points that a run has looked at, small enough to know every answer by hand."""

from __future__ import annotations

import numpy as np

from ditr.data.frame_view import Cloud, FrameView, MapColours
from ditr.evaluation.instances import Instances, prediction_of
from ditr.geometry.camera import Intrinsics

POSE = np.array([[1, 0, 0, 0], [0, 0, 1, -2], [0, -1, 0, 1], [0, 0, 0, 1]], dtype=np.float64)
"""At (0, -2, 1), looks along +y; its right is +x."""


def hand_made(*, features: bool = True) -> FrameView:
    """Two instances of two points each and two void points; the last has no pixel.

    The first prediction is right about instance 0, the second is on void, the third is right about instance 1.
    """
    masks = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0]], dtype=bool)
    found = Instances(masks=masks, scores=np.array([0.9, 0.6, 0.3], dtype=np.float32))
    x, truth = np.arange(6) / 10, np.array([0, 0, 1, 1, -1, -1])
    colours = MapColours(
        of_tokens=np.full((3, 4, 3), 200, dtype=np.uint8),
        covers_hw=(48, 64),
        of_points=np.arange(100, 118, dtype=np.uint8).reshape(6, 3),
    )
    return FrameView(
        frame_id="scene0000_00_0",
        image=np.full((48, 64, 3), 90, dtype=np.uint8),
        uv=np.stack([25 * x + 31.5, np.full(6, 23.5)], axis=1).astype(np.float32),
        uv_valid=np.arange(6) < 5,
        instance_of_point=truth,
        cloud=Cloud(
            xyz=np.stack([x, np.zeros(6), np.ones(6)], axis=1).astype(np.float32),
            rgb=np.arange(18, dtype=np.uint8).reshape(6, 3),
            superpoints=np.array([0, 0, 1, 1, 2, 2]),
            intrinsics=Intrinsics(fx=50, fy=50, cx=31.5, cy=23.5, width=64, height=48),
            pose_c2w=POSE,
        ),
        prediction=prediction_of(found, instance_of_point=truth),
        features=colours if features else None,
    )
