"""Pictures of results as PNG files: the precision-recall curve, and what a model saw and said of one frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ditr.evaluation.instance_ap import PrecisionRecall
from ditr.evaluation.kept import best_of_point, partners

CURVE_COLOURS = ("#0b6e4f", "#d1495b", "#30638e", "#edae49", "#6f4e7c", "#8d99ae")
RIGHT, MISSED, INVENTED = "#2a9d4b", "#d62839", "#f4a300"
GREY = "#555555"


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
    shown = masks[scores >= min_score]
    predicted = best_of_point(shown)
    partner = partners(shown, instance_of_point)
    num_gt = int(instance_of_point.max(initial=-1)) + 1
    matched = np.where(predicted >= 0, np.append(partner, -1)[predicted], -1)
    coloured = np.where(matched >= 0, matched, num_gt + predicted)
    colours = np.vstack([palette(num_gt), _greys(len(shown))])
    found = len(set(partner[partner >= 0].tolist()))
    chosen = f"{len(shown)} of {len(masks)} predictions, score {min_score:.2f} or more"
    caption = f"{found} of {num_gt} found; {chosen}" if len(masks) else "no predictions"
    figure = Figure(figsize=(11, 8.9), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    axes = figure.subplots(2, 2).ravel()
    _picture(axes[0], image, "image", faded=False)
    _picture(axes[1], image, f"ground truth: {num_gt} instances")
    _picture(axes[2], image, caption)
    _picture(axes[3], image, "disagreement (share of all points)")
    for where, ax, index in ((instance_of_point >= 0, axes[1], instance_of_point), (predicted >= 0, axes[2], coloured)):
        drawn = where & uv_valid
        _points(ax, uv[drawn], colours[index[drawn]])
    _keys(axes[2], {"matches no instance": GREY})
    _disagreement(axes[3], uv, uv_valid=uv_valid, truth=instance_of_point, matched=matched, predicted=predicted)
    figure.savefig(path)


def _picture(axes: Axes, image: np.ndarray, title: str, *, faded: bool = True) -> None:
    """The image, in light grey where colours are to lie on it."""
    if faded:
        grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
        image = (255 - 0.45 * (255 - grey)).astype(np.uint8)
    axes.imshow(image, interpolation="bilinear")
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _points(axes: Axes, uv: np.ndarray, colours: np.ndarray | str) -> None:
    axes.scatter(uv[:, 0], uv[:, 1], s=3.5, c=colours, linewidths=0)


def _keys(axes: Axes, colours: Mapping[str, str]) -> None:
    """A legend of colours by name."""
    for name, colour in colours.items():
        axes.scatter([], [], s=40, c=colour, label=name)
    axes.legend(loc="lower left", frameon=True, framealpha=0.9, fontsize=9, ncols=len(colours))


def _disagreement(
    axes: Axes, uv: np.ndarray, *, uv_valid: np.ndarray, truth: np.ndarray, matched: np.ndarray, predicted: np.ndarray
) -> None:
    right = (truth >= 0) & (matched == truth)
    missed = (truth >= 0) & ~right
    invented = (truth < 0) & (predicted >= 0)
    keys = {}
    for name, colour, where in (
        ("right", RIGHT, right),
        ("missed or wrong", MISSED, missed),
        ("on void", INVENTED, invented),
    ):
        _points(axes, uv[where & uv_valid], colour)
        keys[f"{name} {100 * where.mean():.0f}%"] = colour
    _keys(axes, keys)


def palette(count: int) -> np.ndarray:
    """(count, 3) vivid colours; neighbours in the list differ much in hue."""
    from matplotlib.colors import hsv_to_rgb

    index = np.arange(count)
    hue = index * 0.61803398875 % 1
    return hsv_to_rgb(np.stack([hue, 0.95 - 0.35 * (index % 2), 0.92 - 0.3 * (index // 2 % 2)], axis=1))


def _greys(count: int) -> np.ndarray:
    """(count, 3) greys for predictions that match nothing."""
    return np.linspace(0.15, 0.5, count)[:, None].repeat(3, axis=1)


def _cycle(count: int) -> list[str]:
    return [CURVE_COLOURS[index % len(CURVE_COLOURS)] for index in range(count)]
