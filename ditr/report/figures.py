"""Pictures of results as PNG files: the precision-recall curve, and what a model saw and said of one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure

from ditr.evaluation.instance_ap import PrecisionRecall
from ditr.evaluation.kept import best_of_point, partners
from ditr.evaluation.point_outcomes import Outcome, PointOutcomes, point_outcomes

CURVE_COLOURS = ("#0b6e4f", "#d1495b", "#30638e", "#edae49", "#6f4e7c", "#8d99ae")
RIGHT, MISSED, INVENTED = "#2a9d4b", "#d62839", "#f4a300"
GREY = "#555555"
PALE = (0.85, 0.85, 0.85)
"""Of points of which there is nothing to say, where they are drawn at all."""
WITHOUT_PIXEL = (0.62, 0.62, 0.62)
"""Of points that no pixel of the image is of."""
OUTCOME_COLOURS = {Outcome.RIGHT: RIGHT, Outcome.MISSED: MISSED, Outcome.ON_VOID: INVENTED}
OUTCOME_NAMES = {Outcome.RIGHT: "right", Outcome.MISSED: "missed or wrong", Outcome.ON_VOID: "on void"}
MATCHES_NOTHING = "matches no instance"


def pr_curve(curves: Mapping[str, PrecisionRecall], *, path: Path, title: str = "Precision and recall") -> None:
    """Draw curves by label, each with its average precision in the legend."""
    figure = Figure(figsize=(6, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for (label, curve), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
        axes.plot(
            curve.recall, curve.precision, color=colour, lw=2, label=f"{label}   AP {curve.average_precision:.3f}"
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", frameon=False)
    figure.savefig(path)


def panel(
    image: np.ndarray,
    *,
    uv: np.ndarray,
    uv_valid: np.ndarray,
    instance_of_point: np.ndarray,
    masks: np.ndarray,
    scores: np.ndarray,
    min_score: float,
    path: Path,
    title: str,
) -> None:
    """Draw a frame four times: image, ground truth, predictions, and where the two disagree.

    Parameters
    ----------
    image: (H, W, 3) uint8.
    uv, uv_valid: (N, 2) pixels of the points, and (N,) bool: in the image; the others are not drawn.
    instance_of_point: (N,) ground truth, -1 = void.
    masks, scores: (K, N) bool and (K,) predictions, best first.
    min_score: predictions below it are left out of the picture, and counted in its caption.
    """
    outcomes = point_outcomes(
        instance_of_point,
        predicted=best_of_point(masks),
        partner=partners(masks, instance_of_point),
        scores=scores,
        min_score=min_score,
    )
    figure = Figure(figsize=(11, 8.9), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    axes = figure.subplots(2, 2).ravel()
    draw_image(axes[0], image, "image", faded=False)
    draw_outcomes(
        axes[1:],
        image,
        uv=uv,
        uv_valid=uv_valid,
        outcomes=outcomes,
        caption=caption_of(outcomes, min_score, total=len(masks)),
    )
    figure.savefig(path)


def draw_outcomes(
    axes: Sequence[Axes],
    image: np.ndarray,
    *,
    uv: np.ndarray,
    uv_valid: np.ndarray,
    outcomes: PointOutcomes,
    caption: str,
) -> None:
    """Ground truth, predictions and where they disagree, each on the image in one of three ``axes``."""
    truth, predictions, disagreement = axes
    draw_image(truth, image, f"ground truth: {outcomes.total} instances")
    draw_image(predictions, image, caption)
    draw_image(disagreement, image, "disagreement (share of all points)")
    for ax, where, colours in (
        (truth, outcomes.truth >= 0, truth_colours(outcomes)),
        (predictions, outcomes.predicted >= 0, prediction_colours(outcomes)),
    ):
        draw_points(ax, uv[where & uv_valid], colours[where & uv_valid])
    draw_keys(predictions, {MATCHES_NOTHING: GREY})
    for outcome, colour in OUTCOME_COLOURS.items():
        draw_points(disagreement, uv[(outcomes.outcome == outcome) & uv_valid], colour)
    draw_keys(disagreement, outcome_keys(outcomes))


def caption_of(outcomes: PointOutcomes, min_score: float, *, total: int) -> str:
    """What is found, by how many of a frame's ``total`` predictions."""
    if not total:
        return "no predictions"
    chosen = f"{outcomes.shown} of {total} predictions, score {min_score:.2f} or more"
    return f"{outcomes.found} of {outcomes.total} found; {chosen}"


def truth_colours(outcomes: PointOutcomes) -> np.ndarray:
    """(N, 3) in 0..1, a colour an instance; void is ``PALE``."""
    return np.asarray(np.vstack([palette(outcomes.total), [PALE]])[outcomes.truth])


def prediction_colours(outcomes: PointOutcomes) -> np.ndarray:
    """(N, 3) in 0..1: a prediction has the colour of the instance that it is right about, else a grey; ``PALE`` without
    one."""
    greys = np.linspace(0.15, 0.5, outcomes.shown)[:, None].repeat(3, axis=1)
    colours = np.vstack([palette(outcomes.total), greys, [PALE]])
    unmatched = np.where(outcomes.predicted >= 0, outcomes.total + outcomes.predicted, -1)
    return np.asarray(colours[np.where(outcomes.matched >= 0, outcomes.matched, unmatched)])


def outcome_colours(outcomes: PointOutcomes) -> np.ndarray:
    """(N, 3) in 0..1, a colour an outcome; ``PALE`` where there is nothing to say."""
    colours = np.array([to_rgb(OUTCOME_COLOURS.get(outcome, PALE)) for outcome in Outcome])
    return np.asarray(colours[outcomes.outcome])


def outcome_keys(outcomes: PointOutcomes) -> dict[str, str]:
    """Colour by name of an outcome, with its share of all points."""
    return {
        f"{OUTCOME_NAMES[outcome]} {100 * outcomes.share(outcome):.0f}%": colour
        for outcome, colour in OUTCOME_COLOURS.items()
    }


def draw_image(axes: Axes, image: np.ndarray, title: str, *, faded: bool = True) -> None:
    """The image, in light grey where colours are to lie on it."""
    if faded:
        grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
        image = (255 - 0.45 * (255 - grey)).astype(np.uint8)
    axes.imshow(image, interpolation="bilinear")
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def draw_tokens(
    axes: Axes, colours: np.ndarray, *, map_hw: tuple[int, int], image_hw: tuple[int, int], opacity: float
) -> None:
    """Each token's colour (Hp, Wp, 3) on the rectangle of pixels that it stands for; what the map covers beyond the
    image is cut off."""
    height, width = map_hw
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(colours, extent=extent, interpolation="nearest", alpha=opacity, zorder=2)
    height, width = image_hw
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_points(axes: Axes, uv: np.ndarray, colours: np.ndarray | str) -> None:
    """Points at their pixels (N, 2), in colours (N, 3) in 0..1, or in one."""
    axes.scatter(uv[:, 0], uv[:, 1], s=3.5, c=colours, linewidths=0)


def draw_keys(axes: Axes, colours: Mapping[str, str]) -> None:
    """A legend of colours by name."""
    for name, colour in colours.items():
        axes.scatter([], [], s=40, c=colour, label=name)
    axes.legend(loc="lower left", frameon=True, framealpha=0.9, fontsize=9, ncols=len(colours))


def palette(count: int) -> np.ndarray:
    """(count, 3) vivid colours; neighbours in the list differ much in hue."""
    index = np.arange(count)
    hue = index * 0.61803398875 % 1
    return hsv_to_rgb(np.stack([hue, 0.95 - 0.35 * (index % 2), 0.92 - 0.3 * (index // 2 % 2)], axis=1))


def _cycle(count: int) -> list[str]:
    return [CURVE_COLOURS[index % len(CURVE_COLOURS)] for index in range(count)]
