"""What a run saw of one frame and what it said, as one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ditr.evaluation.seen_frame import SeenFrame
from ditr.report.figures import caption_of, draw_image, draw_outcomes, draw_points, draw_tokens
from ditr.report.frame_colours import colours_of
from ditr.report.run_pictures import NONE_FOUND


def draw_seen(seen: SeenFrame, *, path: Path) -> None:
    """Writes the PNG, in folders that are made.

    Above what the model read: image, 2D features, superpoints; below ground truth, predictions, disagreement.
    """
    figure = Figure(figsize=(16.5, 9.1), dpi=110, layout=ConstrainedLayoutEngine(h_pad=0.08), facecolor="white")
    title = f"{seen.run}: {seen.frame_id}" + (NONE_FOUND if seen.run_finds_nothing else "")
    figure.suptitle(title, fontsize=14, fontweight="bold", x=0.01, ha="left")
    (image, features, superpoints), results = figure.subplots(2, 3)
    draw_image(image, seen.image, "image", faded=False)
    _features(features, seen)
    count = int(seen.superpoints.max(initial=-1)) + 1
    draw_image(superpoints, seen.image, f"{count:,} superpoints of {len(seen.xyz):,} points")
    colours = colours_of(seen, "superpoints", min_score=seen.min_score) / 255
    draw_points(superpoints, seen.uv[seen.uv_valid], colours[seen.uv_valid])
    outcomes = seen.outcomes(seen.min_score)
    caption = caption_of(outcomes, seen.min_score, total=len(seen.predicted))
    draw_outcomes(results, seen.image, uv=seen.uv, uv_valid=seen.uv_valid, outcomes=outcomes, caption=caption)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _features(axes: Axes, seen: SeenFrame) -> None:
    """The map over the image."""
    if seen.features is None:
        draw_image(axes, np.full_like(seen.image, 245), "no 2D features: the run is 3D only", faded=False)
        return
    rows, columns = seen.features.map_colours.shape[:2]
    draw_image(axes, seen.image, f"2D features, {rows} x {columns} tokens: three principal components")
    height, width = seen.image.shape[:2]
    draw_tokens(axes, seen.features.map_colours, map_hw=seen.features.map_hw, image_hw=(height, width), opacity=0.8)
