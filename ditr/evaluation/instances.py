"""The predicted instances of one frame, as every part after post-processing sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Instances:
    """K binary masks on N points, best score first."""

    masks: np.ndarray
    """(K, N) bool; masks may overlap."""
    scores: np.ndarray
    """(K,) float32, descending."""

    def __len__(self) -> int:
        return len(self.scores)
