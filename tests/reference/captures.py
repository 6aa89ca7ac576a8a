"""Small captures of a rendered room in the exact formats of others, with exact depth: what is imported is known.

Poses are written by hand as each format has them; the room's world has +z up, and cameras OpenCV's axes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from ditr.geometry.camera import Intrinsics
from ditr.rooms.render import render
from ditr.rooms.room import Room, furnish
from ditr.rooms.viewpoints import choose_viewpoint

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""The room's world to one with +y up."""


@dataclass(frozen=True)
class Take:
    """What one frame is, however it is written."""

    pose: np.ndarray
    """(4, 4) camera to the room's world."""
    colour: np.ndarray
    """(H, W, 3) uint8."""
    depth_m: np.ndarray
    """(h, w) float32, of the depth camera; everything in a room has some."""


@cache
def room() -> Room:
    return furnish(np.random.default_rng(3), texture_share=0.4)


@cache
def poses(count: int = 3) -> tuple[np.ndarray, ...]:
    """The camera pans, rises and walks, enough for a convention to matter."""
    start = choose_viewpoint(room(), seed=1)
    found = []
    for index in range(count):
        move = np.eye(4)
        move[:3, :3] = Rotation.from_euler("yxz", [12 * index, 5 * index, 3 * index], degrees=True).as_matrix()
        move[:3, 3] = (0.12 * index, -0.05 * index, 0.07 * index)
        found.append(start @ move)
    return tuple(found)


def camera(width: int, height: int, *, focal: float = 0.9, off: tuple[float, float] = (3.0, -2.0)) -> Intrinsics:
    """Of an image of this size; its centre is off the middle, as real ones are."""
    cx, cy = (width - 1) / 2 + off[0] * width / 160, (height - 1) / 2 + off[1] * width / 160
    return Intrinsics(fx=focal * width, fy=1.02 * focal * width, cx=cx, cy=cy, width=width, height=height)


def takes(
    colour: Intrinsics, depth: Intrinsics | None = None, *, count: int = 3, at: Sequence[np.ndarray] | None = None
) -> list[Take]:
    """At the first ``count`` of the room's poses, or at others."""
    found = []
    for pose in at or poses(count):
        view = render(room(), pose_c2w=pose, intrinsics=colour)
        measured = view if depth is None or depth == colour else render(room(), pose_c2w=pose, intrinsics=depth)
        image = (255 * np.clip(view.colour, 0, 1) ** 0.6).astype(np.uint8)
        found.append(Take(pose, image, np.where(np.isfinite(measured.hits.depth_m), measured.hits.depth_m, 0)))
    return found


def save_depth(path: Path, depth_m: np.ndarray, *, per_m: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(depth_m.astype(np.float64) * per_m).clip(0, 65535).astype(np.uint16)).save(path)


def save_image(path: Path, colour: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colour).save(path, quality=95)


def matrix_text(matrix: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.9f}" for value in row) for row in matrix) + "\n"


def tum(root: Path, frames: Sequence[Take], of: Intrinsics, *, per_m: float = 5000, real_first: bool = False) -> None:
    """Depth is taken 8 ms after colour; the trajectory has 100 rows a second, which turn between the frames."""
    lists: dict[str, list[str]] = {"rgb": [], "depth": []}
    rows = []
    for index, take in enumerate(frames):
        time = 1305031102.175304 + index / 30
        for kind, late in (("rgb", 0.0), ("depth", 0.008)):
            lists[kind].append(f"{time + late:.6f} {kind}/{time + late:.6f}.png")
        save_image(root / lists["rgb"][-1].split()[1], take.colour)
        save_depth(root / lists["depth"][-1].split()[1], take.depth_m, per_m=per_m)
        q = Rotation.from_matrix(take.pose[:3, :3]).as_quat()
        q = np.roll(q, 1) if real_first else q
        for late, moved in ((-0.012, 0.5), (0.001, 0.0), (0.012, -0.5)):
            numbers = [*(take.pose[:3, 3] + moved), *q]
            rows.append(f"{time + late:.4f} " + " ".join(f"{number:.4f}" for number in numbers))
    lists["depth"].append("1305031999.000000 depth/none.png")
    for kind, lines in lists.items():
        (root / f"{kind}.txt").write_text(
            f"# {kind} images\n# file: 'x.bag'\n# timestamp filename\n" + "\n".join(lines)
        )
    (root / "groundtruth.txt").write_text("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(rows) + "\n")
    (root / "camera.txt").write_text(f"# fx fy cx cy\n{of.fx} {of.fy} {of.cx} {of.cy}\n")


def replica(root: Path, frames: Sequence[Take], of: Intrinsics, *, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for index, take in enumerate(frames):
        save_image(root / f"results/frame{index:06d}.jpg", take.colour)
        save_depth(root / f"results/depth{index:06d}.png", take.depth_m, per_m=6553.5)
    lines = (" ".join(f"{value:.18e}" for value in change(take.pose).ravel()) for take in frames)
    (root / "traj.txt").write_text("\n".join(lines) + "\n")
    said = {"w": of.width, "h": of.height, "fx": of.fx, "fy": of.fy, "cx": of.cx, "cy": of.cy, "scale": 6553.5}
    (root.parent / "cam_params.json").write_text(json.dumps({"camera": said}))


def esam(root: Path, frames: Sequence[Take], of: Intrinsics) -> None:
    """Numbers count in twenties, as ScanNet's do; 9 comes before 10 and after 1 as text."""
    for index, take in enumerate(frames):
        save_image(root / f"color/{index * 9 + 1}.jpg", take.colour)
        save_depth(root / f"depth/{index * 9 + 1}.png", take.depth_m, per_m=1000)
        (root / "pose").mkdir(exist_ok=True)
        (root / f"pose/{index * 9 + 1}.txt").write_text(matrix_text(take.pose))
    matrix = np.eye(4)
    matrix[0, 0], matrix[1, 1], matrix[:2, 2] = of.fx, of.fy, (of.cx, of.cy)
    (root / "intrinsic.txt").write_text(matrix_text(matrix))


def rgbd(
    root: Path,
    frames: Sequence[Take],
    of: Intrinsics,
    *,
    change: Callable[[np.ndarray], np.ndarray] | None = lambda pose: pose,
    said: str = "",
    per_m: float = 1000,
) -> None:
    """``change`` makes what is written of a pose; None writes none."""
    for index, take in enumerate(frames):
        save_image(root / f"color/shot_{index}.png", take.colour)
        save_depth(root / f"depth/shot_{index}.png", take.depth_m, per_m=per_m)
        if change is not None:
            (root / "pose").mkdir(exist_ok=True)
            (root / f"pose/shot_{index}.txt").write_text(matrix_text(change(take.pose)))
    numbers = f"fx: {of.fx}, fy: {of.fy}, cx: {of.cx}, cy: {of.cy}, width: {of.width}, height: {of.height}"
    (root / "capture.yaml").write_text(f"depth_per_m: 1000.0\nintrinsics: {{{numbers}}}\n{said}")


def record3d(root: Path, of: Intrinsics, depth: Intrinsics, *, exr: bool, count: int = 3) -> None:
    """ARKit's axes. Of a ``.r3d`` the focus moves: each frame is taken by its own camera, and ``of`` is the first."""
    import lzfse
    import OpenEXR

    coefficients, rows = [], []
    for index, pose_c2w in enumerate(poses(count)):
        moved = 0 if exr else index
        zoom = 1 + 0.02 * moved
        own = replace(of, fx=of.fx * zoom, fy=of.fy * zoom, cx=of.cx + 0.6 * moved)
        measured = smaller(own, depth.width, depth.height)
        (take,) = takes(own, measured, at=(pose_c2w,))
        images, depths = ("rgb", "depth") if exr else ("rgbd", "rgbd")
        save_image(root / images / f"{index}.jpg", take.colour)
        (root / depths).mkdir(exist_ok=True)
        values = np.where(take.depth_m > 0, take.depth_m, np.nan).astype(np.float32)
        if exr:
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
            OpenEXR.File(header, {"R": values}).write(str(root / depths / f"{index}.exr"))
        else:
            (root / depths / f"{index}.depth").write_bytes(lzfse.compress(values.tobytes()))
        pose = Y_UP @ take.pose @ FLIP
        rows.append([*Rotation.from_matrix(pose[:3, :3]).as_quat().tolist(), *pose[:3, 3].tolist()])
        coefficients.append([own.fx, own.fy, own.cx, own.cy])
    said = {
        "w": of.width, "h": of.height, "dw": depth.width, "dh": depth.height, "fps": 60,
        "K": [of.fx, 0, 0, 0, of.fy, 0, of.cx, of.cy, 1], "poses": rows, "initPose": rows[0],
        "cameraType": 1,
    }  # fmt: skip
    if not exr:
        said["perFrameIntrinsicCoeffs"] = coefficients
    (root / ("metadata.json" if exr else "metadata")).write_text(json.dumps(said))


def arkitscenes(root: Path, frames: Sequence[Take], of: Intrinsics, depth: Intrinsics) -> None:
    """World to camera as axis times angle, ten a second; images come six times as often, of which the rest is black."""
    video, lines = root.name, []
    for index, take in enumerate(frames):
        time = 6845.1 + index / 10
        matrix = np.linalg.inv(take.pose)
        numbers = [*Rotation.from_matrix(matrix[:3, :3]).as_rotvec(), *matrix[:3, 3]]
        lines.append(f"{time:.6f} " + " ".join(f"{number:.9f}" for number in numbers))
        for late, colour in ((0.003, take.colour), (0.0197, np.zeros_like(take.colour))):
            stamp = f"{video}_{time + late:.3f}"
            save_image(root / f"vga_wide/{stamp}.png", colour)
            save_depth(root / f"lowres_depth/{stamp}.png", take.depth_m, per_m=1000)
            for kind, one in (("vga_wide", of), ("lowres_wide", depth)):
                (root / f"{kind}_intrinsics").mkdir(exist_ok=True)
                path = root / f"{kind}_intrinsics/{video}_{time + late + 0.001:.3f}.pincam"
                path.write_text(f"{one.width} {one.height} {one.fx} {one.fy} {one.cx} {one.cy}")
    (root / "lowres_wide.traj").write_text("\n".join(lines) + "\n")


def smaller(of: Intrinsics, width: int, height: int) -> Intrinsics:
    """The camera of the same view with fewer pixels, by the corners of the image."""
    sx, sy = width / of.width, height / of.height
    corner = ((of.cx + 0.5) * sx - 0.5, (of.cy + 0.5) * sy - 0.5)
    return replace(of, fx=of.fx * sx, fy=of.fy * sy, cx=corner[0], cy=corner[1], width=width, height=height)
