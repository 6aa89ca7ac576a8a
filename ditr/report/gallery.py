"""Kept frames of every arm as small pictures inside a page: image, features, truth, what each arm found and missed."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ditr.evaluation.instance_ap import precision_recall
from ditr.evaluation.kept import MATCH_IOU, StoredFrame, load_frames
from ditr.evaluation.point_outcomes import Outcome, point_outcomes
from ditr.report.arms import Arm
from ditr.report.figures import draw_tokens, outcome_colours, palette

_WIDTH_INCHES = 3.2


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture with what is seen in it."""

    caption: str
    data_uri: str


def gallery(arms: Sequence[Arm]) -> dict[str, tuple[Picture, ...]]:
    """By frame id, pictures of the frames that all arms kept in their first seed; empty if there are none."""
    kept = {arm.label: load_frames(arm.runs[0].folder.kept) for arm in arms}
    common = sorted(set.intersection(*(set(frames) for frames in kept.values())))
    scores = {arm.label: precision_recall(arm.tables[0], threshold=MATCH_IOU).best_score for arm in arms}
    return {
        frame_id: _pictures({label: frames[frame_id] for label, frames in kept.items()}, scores) for frame_id in common
    }


def _pictures(frames: dict[str, StoredFrame], scores: dict[str, float]) -> tuple[Picture, ...]:
    first = next(iter(frames.values()))
    pictures = [Picture(caption="image", data_uri=_drawn(first, None, faded=False))]
    if mapped := next((frame for frame in frames.values() if frame.map_colours.size), None):
        pictures.append(Picture(caption="2D features, three main directions", data_uri=_map(mapped)))
    count = int(first.instance_of_point.max(initial=-1)) + 1
    colours = np.vstack([palette(count), [[1, 1, 1]]])
    truth = first.instance_of_point
    pictures.append(
        Picture(caption=f"ground truth: {count} instances", data_uri=_drawn(first, colours[truth], truth >= 0))
    )
    for label, frame in frames.items():
        pictures.append(_errors(label, frame, min_score=scores[label]))
    return tuple(pictures)


def _errors(label: str, frame: StoredFrame, *, min_score: float) -> Picture:
    """Green where a point's best prediction is right about its instance, red where missed or wrong, yellow on void."""
    outcomes = point_outcomes(
        frame.instance_of_point,
        predicted=frame.predicted,
        partner=frame.partner,
        scores=frame.scores,
        min_score=min_score,
    )
    of_instances = int((outcomes.truth >= 0).sum())
    right = int((outcomes.outcome == Outcome.RIGHT).sum()) / max(1, of_instances)
    caption = f"{label}: {outcomes.found} of {outcomes.total} found, {right:.0%} of their points right"
    uri = _drawn(frame, outcome_colours(outcomes), outcomes.outcome != Outcome.NOTHING)
    return Picture(caption=caption, data_uri=uri)


def _drawn(
    frame: StoredFrame, colour: np.ndarray | None, where: np.ndarray | None = None, *, faded: bool = True
) -> str:
    image = frame.image
    if faded:
        image = (255 - 0.4 * (255.0 - image.mean(axis=2, keepdims=True).repeat(3, axis=2))).astype(np.uint8)
    figure, axes = _canvas(image)
    axes.imshow(image)
    if colour is not None and where is not None:
        drawn = where & frame.uv_valid
        axes.scatter(frame.uv[drawn, 0], frame.uv[drawn, 1], s=2.0, c=colour[drawn], linewidths=0)
    return _uri(figure)


def _map(frame: StoredFrame) -> str:
    height, width = frame.image.shape[:2]
    figure, axes = _canvas(frame.image)
    draw_tokens(axes, frame.map_colours, map_hw=(height, width), image_hw=(height, width), opacity=1.0)
    return _uri(figure)


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
