"""One picture of a frame: colour, depth, instances, superpoints, points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ditr.data.classes import CLASS_NAMES, MAPPING, swap_chair_and_floor
from ditr.data.frame import Frame
from ditr.data.scannet_sv import FrameSet, read_image
from ditr.geometry.camera import project

_DPI = 110
_MIN_NAMED_POINTS = 150
_BACKGROUND = "#f4f4f2"


def draw_frame(frames: FrameSet, index: int, *, path: Path) -> None:
    """Writes the panel of frame ``index`` as a PNG."""
    from matplotlib.figure import Figure

    frame, image = frames.frame(index), frames.image(index)
    uv = project(frame.points[:, :3], pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics).uv
    figure = Figure(figsize=(15, 8.2), dpi=_DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(2, 3)
    _image(axes[0, 0], image, "colour")
    _depth(figure, axes[0, 1], frames, index)
    _scatter(axes[1, 0], uv, _instance_colours(frame.instance_ids), image, _instance_title(frame))
    _name_instances(axes[1, 0], frame, uv)
    count = int(frame.superpoints.max()) + 1
    _scatter(axes[1, 1], uv, _colours(frame.superpoints + 1), image, f"{count} superpoints")
    axes[0, 2].remove()
    axes[1, 2].remove()
    _cloud(figure.add_subplot(2, 3, 3, projection="3d"), frame, frame.points[:, 3:] / 255, "points")
    _cloud(
        figure.add_subplot(2, 3, 6, projection="3d"), frame, _instance_colours(frame.instance_ids), "instances in 3D"
    )
    figure.suptitle(f"{frame.id}    {len(frame.points):,} points", fontsize=13, fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _image(axis, image: np.ndarray, title: str) -> None:  # type: ignore[no-untyped-def]
    axis.imshow(image)
    axis.set_title(title)
    axis.set_axis_off()


def _depth(figure, axis, frames: FrameSet, index: int) -> None:  # type: ignore[no-untyped-def]
    info = frames.infos.frames[index]
    path = frames.root / "2D" / info.scene / "depth" / f"{info.number}.png"
    axis.set_axis_off()
    if not path.exists():
        axis.set_title("no depth image in this data set")
        return
    depth = read_image(path) / 1000.0
    shown = axis.imshow(np.where(depth > 0, depth, np.nan), cmap="viridis_r")
    axis.set_facecolor("black")
    axis.set_title(f"depth in m, {np.mean(depth > 0):.1%} measured")
    figure.colorbar(shown, ax=axis, location="bottom", shrink=0.5, aspect=40, pad=0.01)


def _scatter(axis, uv: np.ndarray, colours: np.ndarray, image: np.ndarray, title: str) -> None:  # type: ignore[no-untyped-def]
    grey = np.repeat(image.mean(axis=2, keepdims=True) / 255 * 0.3 + 0.7, 3, axis=2)
    axis.imshow(grey)
    axis.scatter(uv[:, 0], uv[:, 1], c=colours, s=3.2, linewidths=0)
    axis.set_xlim(-0.5, image.shape[1] - 0.5)
    axis.set_ylim(image.shape[0] - 0.5, -0.5)
    axis.set_title(title)
    axis.set_axis_off()


def _cloud(axis, frame: Frame, colours: np.ndarray, title: str) -> None:  # type: ignore[no-untyped-def]
    xyz = frame.points[::2, :3]
    axis.scatter(*xyz.T, c=colours[::2], s=3.0, linewidths=0, depthshade=False)
    forward = frame.pose_c2w[:3, 2]
    axis.view_init(elev=30, azim=float(np.degrees(np.arctan2(-forward[1], -forward[0]))) + 25)
    axis.set_box_aspect(np.maximum(np.ptp(xyz, axis=0), 0.1), zoom=1.9)
    axis.set_title(title)
    axis.set_axis_off()


def _instance_title(frame: Frame) -> str:
    sizes = np.bincount(frame.instance_ids)[1:]
    return f"{np.sum(sizes > 0)} instances, {np.mean(frame.instance_ids == 0):.1%} unannotated"


def _name_instances(axis, frame: Frame, uv: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    classes = MAPPING[swap_chair_and_floor(frame.semantic_ids)]
    for instance in np.unique(frame.instance_ids[frame.instance_ids > 0]):
        mine = frame.instance_ids == instance
        if mine.sum() >= _MIN_NAMED_POINTS:
            index = int(np.bincount(classes[mine]).argmax())
            name = CLASS_NAMES[index] if index < len(CLASS_NAMES) else "?"
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.2}
            axis.text(*np.median(uv[mine], axis=0), name, fontsize=7, ha="center", va="center", bbox=box)


def _instance_colours(instances: np.ndarray) -> np.ndarray:
    colours = _colours(instances)
    colours[instances == 0] = 0.8
    return colours


def _colours(ids: np.ndarray) -> np.ndarray:
    """(N, 3) distinct colours: hues by the golden ratio."""
    from matplotlib.colors import hsv_to_rgb

    hue = (ids * 0.61803398875) % 1
    hsv = np.stack([hue, 0.45 + 0.4 * (ids * 0.37 % 1), 0.95 - 0.3 * (ids * 0.73 % 1)], axis=1)
    return np.asarray(hsv_to_rgb(hsv))
