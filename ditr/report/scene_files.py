"""What is written of a merged scene: points in colours, the numbers, a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ditr.evaluation.scene import Scene
from ditr.files import replacing
from ditr.report.figure_file import save_figure
from ditr.report.frame_axes import PALE, draw_space, palette
from ditr.report.ply import write_ply
from ditr.report.scene_colours import scene_colours

SCENES = "scenes"
"""The folder of a scene's PLY, npz and PNG."""


def write_scene(
    folder: Path, name: str, scene: Scene, *, truth: np.ndarray | None, forward: np.ndarray, title: str
) -> None:
    """Writes ``scenes/<name>`` with the three endings; the folder is there.

    Instances have the same numbers everywhere: their row among the masks of the npz.

    Parameters
    ----------
    truth: (V,) instance of each voxel, -1 = void; None where nothing is annotated.
    forward: (3,) where the cameras looked, for the picture.
    title: of the picture.
    """
    place, instance = folder / SCENES, scene.instance_of_voxel()
    write_ply(place / f"{name}.ply", xyz=scene.xyz, rgb=scene_colours(scene), instance=instance)
    arrays = {
        "xyz": scene.xyz,
        "rgb": np.rint(scene.rgb).astype(np.uint8),
        "instance": instance,
        "masks": scene.members().toarray(),
        "scores": scene.scores,
        "times": scene.times,
        "chances": scene.chances,
    }
    if truth is not None:
        arrays["truth"] = truth
    with replacing(place / f"{name}.npz", durable=False) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    _draw(scene, truth, forward=forward, title=title, path=place / f"{name}.png")


def _draw(scene: Scene, truth: np.ndarray | None, *, forward: np.ndarray, title: str, path: Path) -> None:
    """The voxels in their colours, by instance, and by instance of the ground truth."""
    found = f"{len(scene.instances())} instances"
    panels = {"voxels": scene.rgb / 255, found: scene_colours(scene) / 255}
    if truth is not None:
        count = int(truth.max(initial=-1)) + 1
        panels[f"ground truth: {count} instances"] = np.vstack([palette(count), [PALE]])[truth]
    figure = Figure(figsize=(6 * len(panels), 5), dpi=110, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=14, fontweight="bold", x=0.01, ha="left")
    for place, (name, colours) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place, projection="3d")
        draw_space(axes, scene.xyz, colours, name, forward=forward, zoom=1.5)
    save_figure(figure, path)
