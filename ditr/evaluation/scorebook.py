"""What an evaluation puts down of each frame: its matches, a row of facts about it, its instances, a view of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ditr.data.batch import Sample
from ditr.data.frame import scene_of
from ditr.data.frame_view import FrameView, MapColours, spread_evenly
from ditr.data.samples import SampleSet
from ditr.evaluation.instance_facts import instance_rows
from ditr.evaluation.instances import Instances, predicted_view
from ditr.evaluation.match_table import FrameMatches, match
from ditr.evaluation.texture_ids import texture_ids
from ditr.features.principal_colours import fit_colours
from ditr.spec.models import EvaluationSpec

Row = dict[str, Any]
"""One frame: its id and scene, and numbers; None where a number does not exist for this frame."""


@dataclass(frozen=True, kw_only=True)
class Pages:
    """What is put down of some frames, in their order."""

    matches: list[FrameMatches] = field(default_factory=list)
    frames: list[Row] = field(default_factory=list)
    instances: list[Row] = field(default_factory=list)
    views: list[FrameView] = field(default_factory=list)
    """Of the frames that are kept for pictures; without their maps."""
    maps: list[tuple[Tensor, tuple[int, int] | None] | None] = field(default_factory=list)
    """Of each view: tokens on the host and what they cover; None without a map."""


class Scorebook:
    """Frames are entered in the order of the samples.

    Parameters
    ----------
    keep: how many frames, spread evenly, are kept for pictures.
    facts: whether facts about all instances are kept.
    first: the sample that is entered first; those before it are in another book.
    """

    def __init__(self, samples: SampleSet, *, spec: EvaluationSpec, keep: int, facts: bool, first: int = 0) -> None:
        self.pages = Pages()
        self.first = first
        self._samples = samples
        self._min_points = spec.min_points
        self._chosen = spread_evenly(keep, total=len(samples))
        self._facts = facts
        self._textures = texture_ids(samples.frames.root) if facts else None

    def keeps(self, index: int) -> bool:
        """Whether the frame is one of those for pictures."""
        return index in self._chosen

    def enter(self, sample: Sample, found: Instances, *, reported: Mapping[str, float], tokens: Tensor | None) -> None:
        """The next frame.

        Parameters
        ----------
        sample: on the host.
        reported: numbers that the model and the clock say of it.
        tokens: its map on the host, if it is kept and has one.
        """
        pages, index = self.pages, self.first + len(self.pages.frames)
        matches = match(sample.frame_id, instances=found, instance_of_point=sample.targets.instance_of_point.numpy())
        pages.matches.append(matches)
        own = _row(sample, matches, min_points=self._min_points)
        pages.frames.append({**{name: _number(value) for name, value in reported.items()}, **own})
        if self._facts:
            ids = None if self._textures is None else self._textures[sample.frame_id]
            classes = self._samples.frames.classes
            pages.instances.extend(instance_rows(sample, classes=classes, best_iou=matches.best_iou(), texture_ids=ids))
        if self.keeps(index):
            pages.views.append(predicted_view(self._samples, index, sample=sample, found=found))
            pages.maps.append(None if tokens is None else (tokens, sample.map_hw))


def joined(parts: Sequence[Pages]) -> Pages:
    """Of consecutive frames, as if one book held them."""
    return Pages(
        matches=[one for part in parts for one in part.matches],
        frames=[one for part in parts for one in part.frames],
        instances=[one for part in parts for one in part.instances],
        views=[one for part in parts for one in part.views],
        maps=[one for part in parts for one in part.maps],
    )


def views_of(pages: Pages) -> tuple[FrameView, ...]:
    """The views with their maps in colours, which are those of the first that has one."""
    first = next((tokens for tokens, _ in filter(None, pages.maps)), None)
    if first is None:
        return tuple(pages.views)
    colours = fit_colours(first.flatten(1).T)
    found = (
        None if one is None else MapColours(of_tokens=colours.bytes_of_map(one[0]), covers_hw=one[1])
        for one in pages.maps
    )
    return tuple(replace(view, features=features) for view, features in zip(pages.views, found, strict=True))


def _row(sample: Sample, matches: FrameMatches, *, min_points: int) -> Row:
    counts = matches.gt_sizes >= min_points
    return {
        "frame_id": sample.frame_id,
        "scene": scene_of(sample.frame_id),
        "n_points": len(sample.xyz),
        "n_void": int((sample.targets.instance_of_point < 0).sum()),
        "n_superpoints": sample.num_superpoints,
        "n_gt": int(counts.sum()),
        "n_gt_small": int((~counts).sum()),
        "n_pred": len(matches.scores),
        "best_iou": float(matches.best_iou()[counts].mean()) if counts.any() else None,
        "valid_ratio": float(sample.uv_valid.float().mean()),
        "depth_ok": _number(sample.depth_ok_ratio),
        "boundary_ok": _number(sample.boundary_ok_ratio),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
