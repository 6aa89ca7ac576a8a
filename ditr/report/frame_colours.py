"""The points of a frame in the colours of one question or another, and what the colours mean."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.colors import to_hex, to_rgb

from ditr.data.frame_view import FrameView
from ditr.evaluation.point_outcomes import PointOutcome, PointOutcomes, point_outcomes
from ditr.report.frame_axes import PALE, WITHOUT_PIXEL, palette

RIGHT, MISSED, INVENTED = "#2a9d4b", "#d62839", "#f4a300"
GREY = "#555555"
OUTCOME_COLOURS = {PointOutcome.RIGHT: RIGHT, PointOutcome.MISSED: MISSED, PointOutcome.ON_VOID: INVENTED}
OUTCOME_NAMES = {PointOutcome.RIGHT: "right", PointOutcome.MISSED: "missed or wrong", PointOutcome.ON_VOID: "on void"}
MATCHES_NOTHING = "matches no instance"

Colouring = Literal["colour", "ground truth", "prediction", "disagreement", "superpoints", "features"]
_OF_TRUTH: tuple[Colouring, ...] = ("ground truth", "disagreement")
_OF_ALL: tuple[Colouring, ...] = ("colour", "ground truth", "prediction", "disagreement", "superpoints")


def colourings(view: FrameView) -> tuple[Colouring, ...]:
    """Those that there are of what a run says: a 3D-only run has no features, a frame without labels no truth."""
    of_all = tuple(name for name in _OF_ALL if view.labelled or name not in _OF_TRUTH)
    return of_all if view.features is None else (*of_all, "features")


def colours_of(view: FrameView, name: Colouring, *, min_score: float) -> np.ndarray:
    """(N, 3) uint8; predictions below ``min_score`` are left out."""
    if name == "colour":
        return view.in_space.rgb
    if name == "features":
        assert view.features is not None, "a 3D-only run has no colouring by features"
        assert view.features.of_points is not None, "a stored view has no points in space"
        return np.where(view.uv_valid[:, None], view.features.of_points, _bytes(np.array(WITHOUT_PIXEL)))
    if name == "superpoints":
        return _bytes(superpoint_colours(view))
    of_outcomes = {"ground truth": truth_colours, "prediction": prediction_colours, "disagreement": outcome_colours}
    return _bytes(of_outcomes[name](point_outcomes(view, min_score=min_score)))


def keys_of(view: FrameView, name: Colouring, *, min_score: float) -> dict[str, str]:
    """Colours ``#rrggbb`` by what they mean; those of single instances and superpoints mean nothing else."""
    pale = to_hex(PALE)
    return {
        "colour": {},
        "ground truth": {"void": pale},
        "prediction": ({MATCHES_NOTHING: GREY} if view.labelled else {}) | {"no prediction": pale},
        "disagreement": outcome_keys(point_outcomes(view, min_score=min_score)) | {"void, and nothing predicted": pale},
        "superpoints": {},
        "features": {"no pixel": to_hex(WITHOUT_PIXEL)},
    }[name]


def superpoint_colours(view: FrameView) -> np.ndarray:
    """(N, 3) in 0..1, a colour a superpoint."""
    superpoints = view.in_space.superpoints
    return np.asarray(palette(int(superpoints.max(initial=-1)) + 1)[superpoints])


def truth_colours(outcomes: PointOutcomes) -> np.ndarray:
    """(N, 3) in 0..1, a colour an instance; void is ``PALE``."""
    return np.asarray(np.vstack([palette(outcomes.total), [PALE]])[outcomes.truth])


def prediction_colours(outcomes: PointOutcomes) -> np.ndarray:
    """(N, 3) in 0..1: a prediction has the colour of the instance that it is right about, else a grey; ``PALE`` without
    one. Where nothing is labelled each has a colour of its own."""
    if not outcomes.labelled:
        return np.asarray(np.vstack([palette(outcomes.shown), [PALE]])[outcomes.predicted])
    greys = np.linspace(0.15, 0.5, outcomes.shown)[:, None].repeat(3, axis=1)
    colours = np.vstack([palette(outcomes.total), greys, [PALE]])
    unmatched = np.where(outcomes.predicted >= 0, outcomes.total + outcomes.predicted, -1)
    return np.asarray(colours[np.where(outcomes.matched >= 0, outcomes.matched, unmatched)])


def outcome_colours(outcomes: PointOutcomes) -> np.ndarray:
    """(N, 3) in 0..1, a colour an outcome; ``PALE`` where there is nothing to say."""
    colours = np.array([to_rgb(OUTCOME_COLOURS.get(outcome, PALE)) for outcome in PointOutcome])
    return np.asarray(colours[outcomes.outcome])


def outcome_keys(outcomes: PointOutcomes) -> dict[str, str]:
    """Colour by name of an outcome, with its share of all points."""
    return {
        f"{OUTCOME_NAMES[outcome]} {100 * outcomes.share(outcome):.0f}%": colour
        for outcome, colour in OUTCOME_COLOURS.items()
    }


def _bytes(colours: np.ndarray) -> np.ndarray:
    """uint8 of colours in 0..1."""
    return np.asarray(np.rint(255 * colours).astype(np.uint8))
