"""The points of a frame that a run saw, in the colours of one question or another."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.colors import to_hex

from ditr.evaluation.seen_frame import SeenFrame
from ditr.report.figures import (
    GREY,
    MATCHES_NOTHING,
    PALE,
    WITHOUT_PIXEL,
    outcome_colours,
    outcome_keys,
    palette,
    prediction_colours,
    truth_colours,
)

Colouring = Literal["colour", "ground truth", "prediction", "disagreement", "superpoints", "features"]
_OF_ALL: tuple[Colouring, ...] = ("colour", "ground truth", "prediction", "disagreement", "superpoints")


def colourings(seen: SeenFrame) -> tuple[Colouring, ...]:
    """Those that there are: a 3D-only run has no features."""
    return _OF_ALL if seen.features is None else (*_OF_ALL, "features")


def colours_of(seen: SeenFrame, name: Colouring, *, min_score: float) -> np.ndarray:
    """(N, 3) uint8; predictions below ``min_score`` are left out."""
    if name == "colour":
        return seen.rgb
    if name == "features":
        assert seen.features is not None, "a 3D-only run has no colouring by features"
        return np.where(seen.uv_valid[:, None], seen.features.of_points, _bytes(np.array(WITHOUT_PIXEL)))
    if name == "superpoints":
        return _bytes(palette(int(seen.superpoints.max(initial=-1)) + 1)[seen.superpoints])
    of_outcomes = {"ground truth": truth_colours, "prediction": prediction_colours, "disagreement": outcome_colours}
    return _bytes(of_outcomes[name](seen.outcomes(min_score)))


def keys_of(seen: SeenFrame, name: Colouring, *, min_score: float) -> dict[str, str]:
    """Colours ``#rrggbb`` by what they mean; those of single instances and superpoints mean nothing else."""
    pale = to_hex(PALE)
    return {
        "colour": {},
        "ground truth": {"void": pale},
        "prediction": {MATCHES_NOTHING: GREY, "no prediction": pale},
        "disagreement": outcome_keys(seen.outcomes(min_score)) | {"void, and nothing predicted": pale},
        "superpoints": {},
        "features": {"no pixel": to_hex(WITHOUT_PIXEL)},
    }[name]


def _bytes(colours: np.ndarray) -> np.ndarray:
    """uint8 of colours in 0..1."""
    return np.asarray(np.rint(255 * colours).astype(np.uint8))
