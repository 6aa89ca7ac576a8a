"""Writes a tiny scan in the exact layout of raw ScanNet and the 2D export, and says what is in it.

The room is a handful of boxes, known in closed form: depth is the exact distance along a pixel's ray, rounded to
millimetres. Nothing is shared with ditr.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = {"wall": 1, "chair": 2, "floor": 3, "table": 4, "box": 26, "unlisted thing": 1340}
K_AVERAGE = np.array([[577.870605, 0, 319.5], [0, 577.870605, 239.5], [0, 0, 1]])
K_OWN = np.array([[571.25, 0, 318.75], [0, 569.5, 241.25], [0, 0, 1]])
"""Of the depth camera that the scan's text file names."""
WIDTH, HEIGHT = 640, 480


@dataclass(frozen=True)
class Thing:
    """A box in the aligned room; without vertices the mesh has a hole there, without a label it is not annotated."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    colour: tuple[int, int, int]
    label: str | None = None
    object_id: int | None = None
    in_mesh: bool = True


THINGS = (
    Thing((-2, -2, -0.1), (2, 2, 0), (120, 90, 60), "floor", 0),
    Thing((-2, 1.8, 0), (2, 2, 2.5), (200, 200, 190), "wall", 1),
    Thing((-0.9, 0.2, 0), (-0.1, 1.0, 0.7), (180, 40, 30), "table", 4),
    Thing((0.3, 0.3, 0), (0.8, 0.8, 0.9), (30, 40, 180), "chair", 5),
    Thing((1.0, 0.6, 0), (1.5, 1.1, 0.9), (40, 60, 190), "chair", 7),
    Thing((-1.7, 0.9, 0), (-1.2, 1.4, 0.5), (20, 160, 60)),
    Thing((0.35, 0.35, 1.1), (0.75, 0.75, 1.6), (220, 210, 30), in_mesh=False),
)
SEGMENTS_A_THING = 3


@dataclass(frozen=True)
class RawScan:
    """What was written of a scan."""

    axis_align: np.ndarray  # (4, 4)
    raw_vertices: np.ndarray  # (V, 3) float32
    instance_of_vertex: np.ndarray  # (V,)
    label_of_instance: dict[int, int]  # raw ScanNet200 id
    poses: dict[int, np.ndarray]  # camera to raw world


def write_meta(root: Path, *, train: list[str], val: list[str], kind: str = "") -> None:
    """Lists of scans (kind "") or of frames (kind "sv_"), and the table of labels."""
    folder = root / "meta_data"
    folder.mkdir(parents=True, exist_ok=True)
    for split, lines in (("train", train), ("val", val)):
        (folder / f"scannetv2_{kind}{split}.txt").write_text("".join(f"{line}\n" for line in lines))
    rows = ["id\traw_category\tcategory\tcount\tnyu40id"]
    rows += [f"{number}\t{name}\t{name}\t10\t{number % 40}" for name, number in LABELS.items()]
    (folder / "scannetv2-labels.combined.tsv").write_text("\n".join(rows) + "\n")


def write_scan(
    root: Path,
    scene: str,
    *,
    seed: int,
    numbers: tuple[int, ...],
    spacing_m: float = 0.12,
    K: np.ndarray = K_AVERAGE,
) -> RawScan:
    """``3D/<scene>`` and ``2D/<scene>`` of frames ``numbers``, and their mask images below ``masks``."""
    rng = np.random.default_rng(seed)
    axis_align = _alignment(rng)
    to_raw = np.linalg.inv(axis_align)
    aligned, thing_of_vertex = _vertices(rng, spacing_m)
    raw = (aligned @ to_raw[:3, :3].T + to_raw[:3, 3]).astype(np.float32)
    _write_3d(root, scene, rng, raw, thing_of_vertex, axis_align)
    poses = {}
    for order, number in enumerate(numbers):
        poses[number] = to_raw @ look_at((1.6 - 0.5 * order, -1.7, 1.7), (0.1 * order, 0.7, 0.5))
        _write_2d(root, scene, number, pose=poses[number], axis_align=axis_align, K=K, rng=rng)
    object_ids = np.array([-1 if thing.object_id is None else thing.object_id for thing in THINGS])
    return RawScan(
        axis_align=axis_align,
        raw_vertices=raw,
        instance_of_vertex=object_ids[thing_of_vertex] + 1,
        label_of_instance={thing.object_id + 1: LABELS[thing.label] for thing in THINGS if thing.object_id is not None},
        poses=poses,
    )


def look_at(eye: tuple[float, float, float], target: tuple[float, float, float]) -> np.ndarray:
    """Camera to world: z ahead, x right, y down."""
    ahead = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(ahead, (0, 0, 1))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    pose[:3, 3] = eye
    return pose


def pose_text(pose: np.ndarray) -> str:
    """As ScanNet's exporter writes a pose; invalid ones hold -inf."""
    return "\n".join(" ".join(repr(float(value)) for value in row) for row in pose) + "\n"


def _alignment(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0.3, 1.2)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = rng.uniform(-3, 3, 3)
    return np.round(matrix, 6)  # as many digits as the text file holds


def _vertices(rng: np.random.Generator, spacing_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Points on the boxes' faces, moved a little so that no two are equally far from a point."""
    clouds, owners = [], []
    for index, thing in enumerate(THINGS):
        if not thing.in_mesh:
            continue
        low, size = np.array(thing.low), np.subtract(thing.high, thing.low)
        for axis in range(3):
            a, b = (other for other in range(3) if other != axis)
            steps = [np.linspace(0, 1, max(2, round(size[k] / spacing_m) + 1)) for k in (a, b)]
            grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 2)
            for side in (0.0, 1.0):
                unit = np.empty((len(grid), 3))
                unit[:, axis], unit[:, a], unit[:, b] = side, grid[:, 0], grid[:, 1]
                clouds.append(low + unit * size)
                owners.append(np.full(len(grid), index))
    points = np.concatenate(clouds)
    return points + rng.normal(scale=0.003, size=points.shape), np.concatenate(owners)


def _write_3d(root: Path, scene: str, rng: np.random.Generator, raw: np.ndarray, owner: np.ndarray, axis_align) -> None:
    folder = root / "3D" / scene
    folder.mkdir(parents=True, exist_ok=True)
    write_ply(folder / f"{scene}_vh_clean_2.ply", raw)
    segments = owner * 1000 + 17 * rng.integers(0, SEGMENTS_A_THING, len(owner))
    (folder / f"{scene}_vh_clean_2.0.010000.segs.json").write_text(
        json.dumps({"params": {"kThresh": "0.01"}, "sceneId": scene, "segIndices": segments.tolist()})
    )
    groups = []
    for index, thing in enumerate(THINGS):
        if thing.object_id is None:
            continue
        own = [index * 1000 + 17 * part for part in range(SEGMENTS_A_THING)]
        if thing.object_id == 4:  # claims a segment of the next object too, which stands later in the file
            own.append((index + 1) * 1000)
        groups.append({"id": thing.object_id, "objectId": thing.object_id, "segments": own, "label": thing.label})
    (folder / f"{scene}.aggregation.json").write_text(
        json.dumps({"sceneId": f"scannet.{scene}", "appId": "Aggregator.v2", "segGroups": groups})
    )
    alignment = " ".join(f"{value:.6f}" for value in axis_align.reshape(-1))
    (folder / f"{scene}.txt").write_text(
        f"axisAlignment = {alignment} \ncolorHeight = 968\ncolorWidth = 1296\ndepthHeight = {HEIGHT}\n"
        f"depthWidth = {WIDTH}\nfx_color = 1170.187988\nfx_depth = {K_OWN[0, 0]}\nfy_color = 1170.187988\n"
        f"fy_depth = {K_OWN[1, 1]}\nmx_color = 647.75\nmx_depth = {K_OWN[0, 2]}\nmy_color = 483.75\n"
        f"my_depth = {K_OWN[1, 2]}\nnumDepthFrames = 1000\nsceneType = Lounge\n"
    )


def write_ply(path: Path, xyz: np.ndarray) -> None:
    """Binary little-endian, x y z as float, r g b a as uchar, then triangles."""
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment VCGLIB generated\n"
        f"element vertex {len(xyz)}\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar alpha\n"
        f"element face {len(xyz) - 2}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    vertices = b"".join(struct.pack("<3f4B", *point, 10, 13, 200, 255) for point in xyz.tolist())
    faces = b"".join(struct.pack("<B3i", 3, index, index + 1, index + 2) for index in range(len(xyz) - 2))
    path.write_bytes(header.encode() + vertices + faces)


def _write_2d(root: Path, scene: str, number: int, *, pose: np.ndarray, axis_align, K: np.ndarray, rng) -> None:
    depth, thing = render(axis_align @ pose, K)
    colours = np.array([thing.colour for thing in THINGS] + [(0, 0, 0)])[thing]
    colour = np.clip(colours + rng.normal(scale=4, size=(HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)
    folder = root / "2D" / scene
    for kind in ("color", "depth", "pose"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(colour).save(folder / "color" / f"{number}.jpg", quality=95)
    Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(folder / "depth" / f"{number}.png", compress_level=1)
    (folder / "pose" / f"{number}.txt").write_text(pose_text(pose))
    masks = (thing + 1).astype(np.uint16) * 300  # ids of 16 bits, with gaps
    masks[:, WIDTH // 2 - 60 : WIDTH // 2 + 20] = 0
    (root / "masks" / scene).mkdir(parents=True, exist_ok=True)
    Image.fromarray(masks).save(root / "masks" / scene / f"{number}.png", compress_level=1)


def render(aligned_pose: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) metres of z-depth, 0 where nothing is, and (H, W) index of the thing seen, -1 for none."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u, dtype=float)], axis=-1)
    rays = rays @ aligned_pose[:3, :3].T
    eye = aligned_pose[:3, 3]
    nearest, seen = np.full(u.shape, np.inf), np.full(u.shape, -1)
    for index, thing in enumerate(THINGS):
        with np.errstate(divide="ignore"):
            enter, leave = (np.array(thing.low) - eye) / rays, (np.array(thing.high) - eye) / rays
        first, last = np.minimum(enter, leave).max(axis=-1), np.maximum(enter, leave).min(axis=-1)
        hit = (first < last) & (first > 0.1) & (first < nearest)
        nearest[hit], seen[hit] = first[hit], index
    return np.where(seen >= 0, nearest, 0.0), seen
