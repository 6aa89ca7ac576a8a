"""A frame of six points that a run saw, small enough to know every answer by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ditr.evaluation.instances import Instances
from ditr.evaluation.seen_frame import SeenFeatures, SeenFrame
from ditr.geometry.camera import Intrinsics

POSE = np.array([[1, 0, 0, 0], [0, 0, 1, -2], [0, -1, 0, 1], [0, 0, 0, 1]], dtype=np.float64)
"""At (0, -2, 1), looks along +y; its right is +x."""


def hand_made(*, features: bool = True, **changes: Any) -> SeenFrame:
    """Two instances of two points each and two void points; the last has no pixel.

    The first prediction is right about instance 0, the second is on void, the third is right about instance 1.
    """
    masks = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0]], dtype=bool)
    x = np.arange(6) / 10
    given: dict[str, Any] = {
        "run": "hand_made-s0-0123456789",
        "frame_id": "scene0000_00_0",
        "xyz": np.stack([x, np.zeros(6), np.ones(6)], axis=1).astype(np.float32),
        "rgb": np.arange(18, dtype=np.uint8).reshape(6, 3),
        "superpoints": np.array([0, 0, 1, 1, 2, 2]),
        "instance_of_point": np.array([0, 0, 1, 1, -1, -1]),
        "predicted": Instances(masks=masks, scores=np.array([0.9, 0.6, 0.3], dtype=np.float32)),
        "best_score": 0.5,
        "features": SeenFeatures(
            map_colours=np.full((3, 4, 3), 200, dtype=np.uint8),
            map_hw=(48, 64),
            of_points=np.arange(100, 118, dtype=np.uint8).reshape(6, 3),
        )
        if features
        else None,
        "image": np.full((48, 64, 3), 90, dtype=np.uint8),
        "intrinsics": Intrinsics(fx=50, fy=50, cx=31.5, cy=23.5, width=64, height=48),
        "pose_c2w": POSE,
        "uv": np.stack([25 * x + 31.5, np.full(6, 23.5)], axis=1).astype(np.float32),
        "uv_valid": np.arange(6) < 5,
    }
    return SeenFrame(**given | changes)
