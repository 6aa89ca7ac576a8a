"""Pictures of a frame as PNG files: what the data say, its 2D features, what a run says, and all that a run read."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ditr.data.frame_view import Cloud, FrameView, MapColours
from ditr.evaluation.point_outcomes import PointOutcomes, least_shown, point_outcomes
from ditr.report.figure_file import save_figure
from ditr.report.frame_axes import (
    WITHOUT_PIXEL,
    draw_image,
    draw_keys,
    draw_points,
    draw_space,
    draw_tokens,
    entitle,
    faded,
)
from ditr.report.frame_colours import (
    GREY,
    MATCHES_NOTHING,
    OUTCOME_COLOURS,
    outcome_keys,
    prediction_colours,
    superpoint_colours,
    truth_colours,
)
from ditr.report.instance_colours import instance_colours, masks_on_image

NONE_FOUND = ". No prediction of the run matches anything: the best are shown"
_UNDER_POINTS = 0.45
_MIN_NAMED_POINTS = 150


def draw_data(view: FrameView, *, names: Sequence[str], depth_m: np.ndarray | None, path: Path) -> None:
    """Image, depth, points in space; instances with their names, superpoints, instances in space, or superpoints there
    where the frame is not labelled.

    Parameters
    ----------
    names: of every instance.
    depth_m: (H, W) metres, 0 where nothing was measured; None where the data set has none.
    """
    cloud, truth = view.in_space, view.instance_of_point
    instances = np.where(truth[:, None] < 0, 0.8, _id_colours(truth + 1))
    figure = _figure((15, 8.2), f"{view.frame_id}    {len(truth):,} points")
    image, depth, annotated, superpoints = (figure.add_subplot(2, 3, place) for place in (1, 2, 4, 5))
    draw_image(image, view.image, "image")
    if depth_m is None:
        entitle(depth, "no depth image in this data set")
    else:
        shown = depth.imshow(np.where(depth_m > 0, depth_m, np.nan), cmap="viridis_r")
        entitle(depth, f"depth in m, {np.mean(depth_m > 0):.1%} measured")
        depth.set_facecolor("black")
        figure.colorbar(shown, ax=depth, location="bottom", shrink=0.5, aspect=40, pad=0.01)
    grey, present = faded(view.image, 0.3), np.unique(truth[truth >= 0])
    found = f"{len(present)} instances, {np.mean(truth < 0):.1%} unannotated" if view.labelled else "no labels"
    draw_image(annotated, grey, found)
    draw_points(annotated, view, instances)
    for instance in present:
        mine = (truth == instance) & view.uv_valid
        if mine.sum() >= _MIN_NAMED_POINTS:
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.2}
            u, v = np.median(view.uv[mine], axis=0)
            annotated.text(u, v, names[instance], fontsize=7, ha="center", va="center", bbox=box)
    draw_image(superpoints, grey, f"{int(cloud.superpoints.max()) + 1} superpoints")
    of_superpoints = _id_colours(cloud.superpoints + 1)
    draw_points(superpoints, view, of_superpoints)
    last = (6, instances, "instances in space") if view.labelled else (6, of_superpoints, "superpoints in space")
    for place, colours, title in ((3, cloud.rgb / 255, "points"), last):
        draw_space(
            figure.add_subplot(2, 3, place, projection="3d"),
            cloud.xyz,
            colours,
            title,
            forward=cloud.forward,
            every=2,
            zoom=1.9,
        )
    save_figure(figure, path)


def draw_features(view: FrameView, *, title: str, caption: str, path: Path) -> None:
    """The image, the map, the map over the image; the points in the image, in space and from above."""
    save_figure(feature_figure(view, title=title, caption=caption), path)


def feature_figure(view: FrameView, *, title: str, caption: str) -> Figure:
    """Of a view with features, the cloud's among them."""
    cloud, features = view.in_space, view.features
    assert features is not None, "there is a map to draw"
    assert features.of_points is not None, "the points have read the map"
    colours = np.where(view.uv_valid[:, None], features.of_points / 255, WITHOUT_PIXEL)
    figure = _figure((16.5, 9.4), title)
    figure.supxlabel(caption, fontsize=10, x=0.01, ha="left", linespacing=1.5)
    plain, tokens, blended, pixels = (figure.add_subplot(2, 3, place) for place in (1, 2, 3, 4))
    draw_image(plain, view.image, "image")
    beyond = ""
    if features.covers_hw not in (None, view.image_hw):
        beyond = " over {} x {} pixels, cut at the image".format(*features.covers_hw)
    draw_image(
        tokens, view.image, f"map of {_extent(features)}{beyond}" if features.covers_hw else "features of points"
    )
    draw_tokens(tokens, view, opacity=1.0)
    draw_image(blended, faded(view.image, 1.0), "map over the image")
    draw_tokens(blended, view, opacity=0.55)
    draw_image(pixels, faded(view.image, 0.3), "points at their pixels, as the model reads them")
    draw_points(pixels, view, colours)
    outside = int((~view.uv_valid).sum())
    in_space = f"points in space{f', {outside:,} without a pixel in grey' if outside else ''}"
    space = figure.add_subplot(2, 3, 5, projection="3d")
    draw_space(space, cloud.xyz, colours, in_space, forward=cloud.forward, zoom=1.45)
    _from_above(figure.add_subplot(2, 3, 6), cloud, colours)
    return figure


def draw_results(view: FrameView, *, run: str, best_score: float, path: Path) -> None:
    """Image, ground truth, predictions, and where the two disagree.

    Parameters
    ----------
    best_score: as ``least_shown``; predictions below what it says are left out, and counted in the caption.
    """
    figure = Figure(figsize=(11, 8.9), dpi=110, layout="constrained")
    figure.suptitle(_title(view, run, best_score), fontsize=13, x=0.01, ha="left")
    first, *others = figure.subplots(2, 2).ravel()
    draw_image(first, view.image, "image")
    _results(others, view, best_score=best_score)
    save_figure(figure, path)


def draw_run_view(view: FrameView, *, run: str, best_score: float, path: Path) -> None:
    """Above what the model read: image, 2D features, superpoints; below ground truth, predictions, disagreement, or of
    a frame without labels its predictions on the image, as masks and in space."""
    cloud = view.in_space
    figure = _figure((16.5, 9.1), _title(view, run, best_score), layout=ConstrainedLayoutEngine(h_pad=0.08))
    image, features, superpoints = (figure.add_subplot(2, 3, place) for place in (1, 2, 3))
    draw_image(image, view.image, "image")
    if view.features is None:
        draw_image(features, np.full_like(view.image, 245), "no 2D features: the run is 3D only")
    else:
        title = f"2D features, {_extent(view.features)}: three principal components"
        draw_image(features, faded(view.image, _UNDER_POINTS), title)
        draw_tokens(features, view, opacity=0.8)
    count = int(cloud.superpoints.max(initial=-1)) + 1
    title = f"{count:,} superpoints of {len(cloud.xyz):,} points"
    draw_image(superpoints, faded(view.image, _UNDER_POINTS), title)
    draw_points(superpoints, view, superpoint_colours(view))
    if view.labelled:
        _results([figure.add_subplot(2, 3, place) for place in (4, 5, 6)], view, best_score=best_score)
    else:
        _predictions(figure, view, best_score=best_score)
    save_figure(figure, path)


def caption_of(outcomes: PointOutcomes, min_score: float, *, total: int) -> str:
    """What is found, by how many of a frame's ``total`` predictions."""
    if not total:
        return "no predictions"
    chosen = f"{outcomes.shown} of {total} predictions, score {min_score:.2f} or more"
    return f"{outcomes.found} of {outcomes.total} found; {chosen}" if outcomes.labelled else chosen


def _results(axes: Sequence[Axes], view: FrameView, *, best_score: float) -> None:
    """Ground truth, predictions and where they disagree, each on the image in one of three ``axes``."""
    scores, (truth, predictions, disagreement) = view.predicted.scores, axes
    min_score = least_shown(scores, best_score=best_score)
    outcomes, image = point_outcomes(view, min_score=min_score), faded(view.image, _UNDER_POINTS)
    draw_image(truth, image, f"ground truth: {outcomes.total} instances")
    draw_image(predictions, image, caption_of(outcomes, min_score, total=len(scores)))
    draw_image(disagreement, image, "disagreement (share of all points)")
    draw_points(truth, view, truth_colours(outcomes), where=outcomes.truth >= 0)
    draw_points(predictions, view, prediction_colours(outcomes), where=outcomes.predicted >= 0)
    draw_keys(predictions, {MATCHES_NOTHING: GREY})
    for outcome, colour in OUTCOME_COLOURS.items():
        draw_points(disagreement, view, colour, where=outcomes.outcome == outcome)
    draw_keys(disagreement, outcome_keys(outcomes))


def _predictions(figure: Figure, view: FrameView, *, best_score: float) -> None:
    """The lower half for a frame of which nothing else is known."""
    cloud, scores = view.in_space, view.predicted.scores
    min_score = least_shown(scores, best_score=best_score)
    outcomes = point_outcomes(view, min_score=min_score)
    points, masks = figure.add_subplot(2, 3, 4), figure.add_subplot(2, 3, 5)
    draw_image(points, faded(view.image, _UNDER_POINTS), caption_of(outcomes, min_score, total=len(scores)))
    draw_points(points, view, prediction_colours(outcomes), where=outcomes.predicted >= 0)
    draw_image(masks, masks_on_image(view, outcomes.predicted), "the same as masks")
    space = figure.add_subplot(2, 3, 6, projection="3d")
    colours = instance_colours(outcomes.predicted, without=cloud.rgb) / 255
    draw_space(space, cloud.xyz, colours, "the same in space", forward=cloud.forward, zoom=1.5)


def _title(view: FrameView, run: str, best_score: float) -> str:
    return f"{run}: {view.frame_id}" + ("" if isfinite(best_score) else NONE_FOUND)


def _figure(size: tuple[float, float], title: str, *, layout: str | ConstrainedLayoutEngine = "constrained") -> Figure:
    figure = Figure(figsize=size, dpi=110, layout=layout, facecolor="white")  # type: ignore[arg-type]
    figure.suptitle(title, fontsize=14, fontweight="bold", x=0.01, ha="left")
    return figure


def _from_above(axes: Axes, cloud: Cloud, colours: np.ndarray) -> None:
    """Turned about +z so that the camera looks up the page: left and right are those of the image."""
    xyz, pose = cloud.xyz, cloud.pose_c2w
    right = pose[:2, 0] / np.linalg.norm(pose[:2, 0])
    ahead = np.array([-right[1], right[0]])
    order = np.argsort(xyz[:, 2])  # the highest on top
    from_camera = (xyz[:, :2] - pose[:2, 3])[order]
    axes.scatter(from_camera @ right, from_camera @ ahead, c=colours[order], s=4.0, linewidths=0)
    axes.plot([0], [0], marker="^", color="black", markersize=8)
    axes.set_aspect("equal", adjustable="datalim")
    entitle(axes, "points from above, the camera at the triangle")


def _extent(features: MapColours) -> str:
    rows, columns = features.of_tokens.shape[:2]
    return f"{columns:,} points" if features.covers_hw is None else f"{rows} x {columns} tokens"


def _id_colours(ids: np.ndarray) -> np.ndarray:
    """(N, 3) in 0..1, distinct colours of whatever ids: hues by the golden ratio."""
    hsv = np.stack([ids * 0.61803398875 % 1, 0.45 + 0.4 * (ids * 0.37 % 1), 0.95 - 0.3 * (ids * 0.73 % 1)], axis=1)
    return np.asarray(hsv_to_rgb(hsv))
