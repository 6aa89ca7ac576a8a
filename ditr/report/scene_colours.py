"""A merged scene's voxels as points in the colours of their instances."""

from __future__ import annotations

import numpy as np

from ditr.evaluation.scene import Scene
from ditr.report.instance_colours import instance_colours

PALENESS = 0.5
"""Of voxels of no instance, so that instances show."""


def scene_colours(scene: Scene) -> np.ndarray:
    """(V, 3) uint8: a colour an instance, which stays its own while the scene grows; else the voxel's own, paler."""
    pale = np.rint(255 - PALENESS * (255 - scene.rgb)).astype(np.uint8)
    return instance_colours(scene.instance_of_voxel(), without=pale)
