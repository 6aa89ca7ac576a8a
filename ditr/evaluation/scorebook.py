"""What an evaluation puts down of each frame: its matches, a row of facts about it, its instances, a view of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ditr.data.batch import Sample
from ditr.data.frame import scene_of
from ditr.data.frame_view import FrameView, MapColours, spread_evenly
from ditr.data.samples import SampleSet
from ditr.evaluation.instance_facts import instance_rows
from ditr.evaluation.instances import Instances, predicted_view
from ditr.evaluation.match_table import FrameMatches, MatchTable
from ditr.evaluation.texture_ids import texture_ids
from ditr.features.principal_colours import PrincipalColours, fit_colours
from ditr.spec.models import EvaluationSpec

Row = dict[str, Any]
"""One frame: its id and scene, and numbers; None where a number does not exist for this frame."""


class Scorebook:
    """Frames are entered in the order of the samples.

    Parameters
    ----------
    keep: how many frames, spread evenly, are kept for pictures.
    facts: whether facts about all instances are kept.
    """

    def __init__(self, samples: SampleSet, *, spec: EvaluationSpec, keep: int, facts: bool) -> None:
        self.table = MatchTable(min_points=spec.min_points)
        self.frames: list[Row] = []
        self.instances: list[Row] = []
        self.views: list[FrameView] = []
        self._samples = samples
        self._chosen = spread_evenly(keep, total=len(samples))
        self._colours: PrincipalColours | None = None
        self._facts = facts
        self._textures = texture_ids(samples.frames.root) if facts else None

    def keeps(self, index: int) -> bool:
        """Whether the frame is one of those for pictures."""
        return index in self._chosen

    def coloured(self, sample: Sample) -> MapColours | None:
        """The map of a frame that is kept, in colours that are those of the first such frame; None without a map."""
        if sample.tokens is None:
            return None
        if self._colours is None:
            self._colours = fit_colours(sample.tokens.flatten(1).T)
        return MapColours(of_tokens=self._colours.bytes_of_map(sample.tokens), covers_hw=sample.map_hw)

    def enter(
        self, sample: Sample, found: Instances, *, reported: Mapping[str, float], features: MapColours | None
    ) -> None:
        """The next frame.

        Parameters
        ----------
        sample: on the host.
        reported: numbers that the model and the clock say of it.
        features: its map in colours, if it is kept and has one.
        """
        index = len(self.frames)
        matches = self.table.add(sample.frame_id, found, sample.targets.instance_of_point.numpy())
        own = _row(sample, matches, min_points=self.table.min_points)
        self.frames.append({**{name: _number(value) for name, value in reported.items()}, **own})
        if self._facts:
            ids = None if self._textures is None else self._textures[sample.frame_id]
            classes = self._samples.frames.classes
            self.instances.extend(instance_rows(sample, classes=classes, best_iou=matches.best_iou(), texture_ids=ids))
        if self.keeps(index):
            view = predicted_view(self._samples, index, sample=sample, found=found)
            self.views.append(replace(view, features=features))


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
