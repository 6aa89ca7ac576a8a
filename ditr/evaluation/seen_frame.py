"""One frame as a trained model sees it: all that a view of it needs, without data set, model or features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from ditr.evaluation.kept import best_of_point, least_shown, partners
from ditr.evaluation.point_outcomes import PointOutcomes, point_outcomes

if TYPE_CHECKING:
    from ditr.evaluation.instances import Instances
    from ditr.geometry.camera import Intrinsics


@dataclass(frozen=True, kw_only=True)
class SeenFeatures:
    """2D features in colours: three principal components of the frame's map alone."""

    map_colours: np.ndarray
    """(Hp, Wp, 3) uint8, a colour a token."""
    map_hw: tuple[int, int]
    """Height and width in pixels of the image that the map covers from its top left corner."""
    of_points: np.ndarray
    """(N, 3) uint8 of what each point reads; means nothing where it has no pixel."""


@dataclass(frozen=True, kw_only=True)
class SeenFrame:
    """N points of a frame, what is true of them, and what a run says."""

    run: str
    """Name of the run's folder."""
    frame_id: str
    xyz: np.ndarray
    """(N, 3) float32 metres in the frame's centred world, +z up: the points as they are stored."""
    rgb: np.ndarray
    """(N, 3) uint8."""
    superpoints: np.ndarray
    """(N,) int64, 0..S-1."""
    instance_of_point: np.ndarray
    """(N,) int64 ground truth, -1 = void."""
    predicted: Instances
    best_score: float
    """From which on the run's precision and recall are in best balance; inf where none of its predictions matches
    anything."""
    features: SeenFeatures | None
    """As the model read them; None in a 3D-only run."""
    image: np.ndarray
    """(H, W, 3) uint8."""
    intrinsics: Intrinsics
    pose_c2w: np.ndarray
    """(4, 4) float64, camera to the world of ``xyz``; the camera looks along its +z, +y down."""
    uv: np.ndarray
    """(N, 2) float32 pixels of the points; 0 where not valid."""
    uv_valid: np.ndarray
    """(N,) bool: the point is in the image."""

    @property
    def run_finds_nothing(self) -> bool:
        """Whether no prediction of the whole run matches anything."""
        return not isfinite(self.best_score)

    @property
    def min_score(self) -> float:
        """From which on pictures of the run show predictions."""
        return least_shown(self.predicted.scores, best_score=self.best_score)

    def outcomes(self, min_score: float) -> PointOutcomes:
        """What the predictions with this score or more say of each point, against the ground truth."""
        return point_outcomes(
            self.instance_of_point,
            predicted=self._best_of_point,
            partner=self._partners,
            scores=self.predicted.scores,
            min_score=min_score,
        )

    @cached_property
    def _best_of_point(self) -> np.ndarray:
        return best_of_point(self.predicted.masks)

    @cached_property
    def _partners(self) -> np.ndarray:
        return partners(self.predicted.masks, self.instance_of_point)
