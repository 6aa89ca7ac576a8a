"""What is written of each predicted frame: the masks on the image, points in colours, the numbers, the picture of
``ditr view``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ditr.data.frame_view import FrameView
from ditr.evaluation.instances import Instances
from ditr.evaluation.point_outcomes import least_shown, point_outcomes
from ditr.files import replacing
from ditr.report.frame_pictures import draw_run_view
from ditr.report.instance_colours import instance_colours, masks_on_image
from ditr.report.ply import write_ply

FOLDERS = ("masks", "points", "instances", "panels")
"""Of a frame's PNG, PLY, npz and PNG."""


def write_frame(folder: Path, view: FrameView, found: Instances, *, model: str, best_score: float) -> None:
    """Writes ``<kind>/<frame id>.<ending>`` of the four kinds; the folders are there.

    PNG and PLY show the predictions from ``least_shown`` on, as the panel does; the npz holds all.

    Parameters
    ----------
    model: its name, for the panel's title.
    best_score: as ``TrainedModel.best_score``.
    """
    cloud, name = view.in_space, view.frame_id
    instances = point_outcomes(view, min_score=least_shown(found.scores, best_score=best_score)).predicted
    with replacing(folder / "masks" / f"{name}.png", durable=False) as beside:
        Image.fromarray(masks_on_image(view, instances)).save(beside, "PNG", compress_level=1)
    write_ply(
        folder / "points" / f"{name}.ply",
        xyz=cloud.xyz,
        rgb=instance_colours(instances, without=cloud.rgb),
        instance=instances,
    )
    with replacing(folder / "instances" / f"{name}.npz", durable=False) as beside, beside.open("wb") as file:
        np.savez_compressed(
            file, xyz=cloud.xyz, rgb=cloud.rgb, pose_c2w=cloud.pose_c2w, masks=found.masks, scores=found.scores
        )
    draw_run_view(view, run=model, best_score=best_score, path=folder / "panels" / f"{name}.png")
