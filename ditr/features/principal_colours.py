"""Features as colours: the three directions in which one frame's tokens differ most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

_COMPONENTS = 3
_TAILS = (2.0, 98.0)
"""Percentiles of the tokens that become a colour's least and most: a few outliers do not grey out the rest."""


@dataclass(frozen=True, kw_only=True)
class PrincipalColours:
    """An affine map from C channels to red, green and blue in 0..1."""

    mean: np.ndarray
    """(C,)."""
    directions: np.ndarray
    """(3, C) of length 1, or 0 where the tokens differ in fewer directions; the strongest channel is positive."""
    low: np.ndarray
    high: np.ndarray
    """(3,) coordinates that become 0 and 1; equal where all are."""
    explained: tuple[float, float, float]
    """Share of the tokens' variance along each direction."""

    def of(self, features: Tensor) -> np.ndarray:
        """(N, 3) float64 colours of (N, C) features; the middle one where the tokens do not differ."""
        coordinates = (features.double().cpu().numpy() - self.mean) @ self.directions.T
        width = self.high - self.low
        flat = width <= 0
        colours = (coordinates - self.low) / np.where(flat, 1.0, width)
        return np.where(flat, 0.5, np.clip(colours, 0.0, 1.0))

    def bytes_of(self, features: Tensor) -> np.ndarray:
        """(N, 3) uint8 colours of (N, C) features."""
        return np.asarray(np.rint(255 * self.of(features)).astype(np.uint8))

    def bytes_of_map(self, tokens: Tensor) -> np.ndarray:
        """(Hp, Wp, 3) uint8 colours of a map (C, Hp, Wp)."""
        return self.bytes_of(tokens.flatten(1).T).reshape(*tokens.shape[1:], 3)


def fit_colours(tokens: Tensor) -> PrincipalColours:
    """Principal components of (T, C) finite tokens, T at least 1; the same tokens give the same colours."""
    values = tokens.double().cpu().numpy()
    mean = values.mean(axis=0)
    _, lengths, basis = np.linalg.svd(values - mean, full_matrices=False)
    variances = lengths**2
    kept = min(_COMPONENTS, len(basis))
    # What is left of rounding is no direction: it would be stretched to full colours.
    real = variances[:kept] > variances.sum() * len(values) * np.finfo(np.float64).eps
    directions = np.zeros((_COMPONENTS, values.shape[1]))
    directions[:kept] = np.where(real[:, None], basis[:kept], 0.0)
    strongest = np.abs(directions).argmax(axis=1)
    directions *= np.where(directions[np.arange(_COMPONENTS), strongest] < 0, -1.0, 1.0)[:, None]
    low, high = np.percentile((values - mean) @ directions.T, _TAILS, axis=0)
    explained = np.zeros(_COMPONENTS)
    explained[:kept] = np.where(real, variances[:kept] / max(variances.sum(), np.finfo(np.float64).tiny), 0.0)
    first, second, third = (float(share) for share in explained)
    return PrincipalColours(mean=mean, directions=directions, low=low, high=high, explained=(first, second, third))
