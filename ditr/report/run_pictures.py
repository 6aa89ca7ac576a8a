"""The pictures in a run's folder: precision and recall, and panels of the first frames."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from ditr.evaluation.instance_ap import precision_recall
from ditr.evaluation.kept import MATCH_IOU, least_shown
from ditr.report.figures import panel, pr_curve

if TYPE_CHECKING:
    from ditr.data.scannet_sv import FrameSet
    from ditr.evaluation.evaluate import Evaluation

CURVES = {"IoU > 0.50": 0.50, "IoU > 0.25": 0.25}
NONE_FOUND = ". No prediction of the run matches anything: the best are shown"


def draw_run(folder: Path, *, evaluation: Evaluation, frames: FrameSet, name: str) -> None:
    """Draws ``pr_curve.png`` and one ``panel_<frame>.png`` for each kept frame into ``folder``.

    Panels show the predictions from the score on at which precision and recall at ``MATCH_IOU`` are in best balance.

    Parameters
    ----------
    frames: the set that was evaluated, for the images.
    name: of the run, for titles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    curves = {label: precision_recall(evaluation.table, threshold=threshold) for label, threshold in CURVES.items()}
    pr_curve(curves, path=folder / "pr_curve.png", title=name)
    best = precision_recall(evaluation.table, threshold=MATCH_IOU).best_score
    for kept in evaluation.kept:
        panel(
            frames.image(kept.index),
            uv=kept.uv,
            uv_valid=kept.uv_valid,
            instance_of_point=kept.instance_of_point,
            masks=kept.predicted.masks,
            scores=kept.predicted.scores,
            min_score=least_shown(kept.predicted.scores, best_score=best),
            path=folder / f"panel_{kept.frame_id}.png",
            title=f"{name}: {kept.frame_id}" + ("" if isfinite(best) else NONE_FOUND),
        )
