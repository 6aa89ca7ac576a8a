"""Kept frames of every arm as small pictures inside a page: image, features, truth, what each arm found and missed."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ditr.data.frame_view import FrameView, load_views
from ditr.evaluation.instance_ap import precision_recall
from ditr.evaluation.instances import MATCH_IOU
from ditr.evaluation.point_outcomes import PointOutcome, point_outcomes
from ditr.report.arms import Arm
from ditr.report.frame_axes import draw_points, draw_tokens, faded
from ditr.report.frame_colours import outcome_colours, truth_colours

_WIDTH_INCHES = 3.2
_FADED = 0.4


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture with what is seen in it."""

    caption: str
    data_uri: str


def gallery(arms: Sequence[Arm]) -> dict[str, tuple[Picture, ...]]:
    """By frame id, pictures of the frames that all arms kept in their first seed; empty if there are none."""
    kept = {arm.label: load_views(arm.runs[0].folder.kept) for arm in arms}
    common = sorted(set.intersection(*(set(frames) for frames in kept.values())))
    scores = {arm.label: precision_recall(arm.tables[0], threshold=MATCH_IOU).best_score for arm in arms}
    return {
        frame_id: _pictures({label: frames[frame_id] for label, frames in kept.items()}, scores) for frame_id in common
    }


def _pictures(views: dict[str, FrameView], scores: dict[str, float]) -> tuple[Picture, ...]:
    first = next(iter(views.values()))
    pictures = [_drawn("image", first.image)]
    if mapped := next((view for view in views.values() if view.features is not None), None):
        figure, axes = _canvas(mapped.image)
        draw_tokens(axes, mapped, opacity=1.0)
        pictures.append(Picture(caption="2D features, three main directions", data_uri=_uri(figure)))
    outcomes = point_outcomes(first, min_score=np.inf)
    caption = f"ground truth: {outcomes.total} instances"
    pictures.append(_drawn(caption, faded(first.image, _FADED), first, truth_colours(outcomes), outcomes.truth >= 0))
    return (*pictures, *(_errors(label, view, min_score=scores[label]) for label, view in views.items()))


def _errors(label: str, view: FrameView, *, min_score: float) -> Picture:
    """Green where a point's best prediction is right about its instance, red where missed or wrong, yellow on void."""
    outcomes = point_outcomes(view, min_score=min_score)
    of_instances = int((outcomes.truth >= 0).sum())
    right = int((outcomes.outcome == PointOutcome.RIGHT).sum()) / max(1, of_instances)
    caption = f"{label}: {outcomes.found} of {outcomes.total} found, {right:.0%} of their points right"
    where = outcomes.outcome != PointOutcome.NOTHING
    return _drawn(caption, faded(view.image, _FADED), view, outcome_colours(outcomes), where)


def _drawn(
    caption: str,
    image: np.ndarray,
    view: FrameView | None = None,
    colours: np.ndarray | str = "",
    where: np.ndarray | None = None,
) -> Picture:
    """The image, and on it the points of a view."""
    figure, axes = _canvas(image)
    axes.imshow(image)
    if view is not None:
        draw_points(axes, view, colours, where=where, size=2.0)
    return Picture(caption=caption, data_uri=_uri(figure))


def _canvas(image: np.ndarray) -> tuple[Figure, Axes]:
    height, width = image.shape[:2]
    figure = Figure(figsize=(_WIDTH_INCHES, _WIDTH_INCHES * height / width), dpi=120)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()
    return figure, axes


def _uri(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="jpeg", pil_kwargs={"quality": 82})
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
