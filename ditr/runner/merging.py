"""Predicted frames merged to scenes: each grows until its last frame has come, and is then written and scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ditr.data.frame_view import FrameView
from ditr.evaluation.instance_ap import Scores, scores
from ditr.evaluation.match_table import MatchTable
from ditr.evaluation.point_outcomes import least_shown
from ditr.evaluation.scene import Scene, empty_scene, merge
from ditr.evaluation.scene_truth import MIN_VOXELS, SceneTruth, add_truth, empty_truth
from ditr.report.scene_files import write_scene
from ditr.runner.predictor import PredictedFrame, Predictor

Show = Callable[[str, Scene, FrameView, np.ndarray], None]
"""Shows a scene, by name, into which a frame was merged, and what takes the frame's world to the scene's."""


@dataclass(kw_only=True)
class _Growth:
    """A scene under way."""

    scene: Scene = field(default_factory=empty_scene)
    truth: SceneTruth = field(default_factory=empty_truth)
    forward: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """(3,) sum of where the cameras looked."""
    annotated: bool = True
    """Whether all frames are."""


class Merging:
    """Frames in, scenes out.

    Parameters
    ----------
    folder: where ``write_scene`` writes.
    show: called after every frame.
    apart: what the check of the data says of frames that do not agree, for the result file.

    Raises
    ------
    DitrError: nothing says where a frame is in its scene's world.
    """

    def __init__(self, predictor: Predictor, folder: Path, *, show: Show | None, apart: Sequence[str] = ()) -> None:
        self.scenes: dict[str, dict[str, Any]] = {}
        """Facts about each that is written, by name."""
        self.table = MatchTable(min_points=MIN_VOXELS)
        """Of those that are annotated."""
        self._trained, self._frames = predictor.trained, predictor.frames
        self._folder, self._show, self._apart = folder, show, apart
        self._shifts = [self._frames.shift_to_world(index) for index in range(len(self._frames))]
        self._growing: dict[str, _Growth] = {}
        self._to_come = Counter(info.scene for info in self._frames.infos.frames)
        self._frames_of = dict(self._to_come)

    def add(self, frame: PredictedFrame) -> None:
        """Merges the instances that pictures show of the frame; with the last frame of a scene the scene is written."""
        cloud, name = frame.view.in_space, self._frames.infos.frames[frame.index].scene
        grown, shift = self._growing.setdefault(name, _Growth()), self._shifts[frame.index]
        shown = frame.found.scores >= least_shown(frame.found.scores, best_score=self._trained.best_score)
        xyz = cloud.xyz + shift
        grown.scene = merge(
            grown.scene, xyz=xyz, rgb=cloud.rgb, masks=frame.found.masks[shown], scores=frame.found.scores[shown]
        )
        grown.forward = grown.forward + cloud.forward
        if frame.instance_ids is None:
            grown.annotated = False
        else:
            grown.truth = add_truth(grown.truth, xyz=xyz, ids=frame.instance_ids)
        if self._show is not None:
            self._show(name, grown.scene, frame.view, shift)
        self._to_come[name] -= 1
        if not self._to_come[name]:
            self._finish(name, self._growing.pop(name))

    def facts(self) -> dict[str, Any]:
        """For the result file: of every scene, and the scores over all that are annotated."""
        whole = as_plain(scores(self.table)) if len(self.table) else None
        return {"scenes": self.scenes, "scene_scores": whole, "min_voxels": MIN_VOXELS, "frames_apart": [*self._apart]}

    def _finish(self, name: str, grown: _Growth) -> None:
        scene, own = grown.scene, None
        truth = grown.truth.of_voxels(scene.keys) if grown.annotated else None
        if truth is not None:
            self.table.add(name, scene.instances(), truth)
            own = as_plain(scores(self.table.subset([name])))
        self.scenes[name] = {
            "frames": self._frames_of[name],
            "voxels": len(scene.keys),
            "instances": len(scene.instances()),
            "annotated": None if truth is None else int(truth.max(initial=-1)) + 1,
            "scores": own,
        }
        title = f"{self._trained.name}: {name}, {self._frames_of[name]} frames"
        if own is not None and own["ap50"] is not None:
            title += f", AP50 {own['ap50']:.3f}"
        write_scene(self._folder, name, scene, truth=truth, forward=grown.forward, title=title)


def as_plain(found: Scores) -> dict[str, float | None]:
    """By metric; None where there is no ground truth, for JSON has no NaN."""
    return {name: None if np.isnan(value) else value for name, value in asdict(found).items()}
