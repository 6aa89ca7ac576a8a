"""Info pickles as ESAM's tools/create_data.py writes them, put together from its description alone.

Nothing is shared with ditr: neither key names, nor paths, nor how a pickle is written. Dumps are those of mmengine:
protocol 2, from a Python with numpy 1, whose arrays name ``numpy.core``.
"""

from __future__ import annotations

import copy
import os.path as osp
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class RawFrame:
    scene: str
    number: int
    pose: np.ndarray
    axis_align: np.ndarray

    @property
    def id(self) -> str:
        return f"{self.scene}_{self.number}"


def single_v1(frames: list[RawFrame], *, root: str) -> list[dict[str, Any]]:
    """``root`` as ESAM was told it, for instance ./data/scannet200-sv: the image's path starts with it."""
    return [
        {
            "point_cloud": {"num_features": 6, "lidar_idx": frame.id},
            "pts_path": osp.join("points", f"{frame.id}.bin"),
            "super_pts_path": osp.join("super_points", f"{frame.id}.bin"),
            "img_path": osp.join(root, "2D", frame.scene, "color", f"{frame.number}.jpg"),
            "pose": frame.pose,
            "pts_instance_mask_path": osp.join("instance_mask", f"{frame.id}.bin"),
            "pts_semantic_mask_path": osp.join("semantic_mask", f"{frame.id}.bin"),
            "annos": {"axis_align_matrix": frame.axis_align},
        }
        for frame in frames
    ]


def single_v2(frames: list[RawFrame], *, root: str, categories: dict[str, int]) -> dict[str, Any]:
    entries = []
    for old in single_v1(frames, root=root):
        new: dict[str, Any] = {}
        new["lidar_points"] = {
            "num_pts_feats": old["point_cloud"]["num_features"],
            "lidar_path": osp.basename(old["pts_path"]),
        }
        new["instances"] = []
        for key in ("pts_semantic_mask_path", "pts_instance_mask_path", "super_pts_path"):
            new[key] = osp.basename(old[key])
        new["img_path"], new["pose"] = old["img_path"], old["pose"]
        new["axis_align_matrix"] = old["annos"]["axis_align_matrix"].tolist()
        entries.append(new)
    return {"metainfo": _metainfo(categories), "data_list": entries}


def scans_v1(frames: list[RawFrame], *, root: str) -> list[dict[str, Any]]:
    """One entry a scan, its frames in the order of their numbers."""
    entries = []
    for scene in sorted({frame.scene for frame in frames}):
        mine = sorted((frame for frame in frames if frame.scene == scene), key=lambda frame: frame.number)
        entries.append(
            {
                "point_cloud": {"num_features": 6, "lidar_idx": scene},
                "pts_paths": [f"points/{scene}/{frame.number}.bin" for frame in mine],
                "super_pts_paths": [f"super_points/{scene}/{frame.number}.bin" for frame in mine],
                "img_paths": [osp.join(root, "2D", scene, "color", f"{frame.number}.jpg") for frame in mine],
                "poses": [frame.pose for frame in mine],
                "pts_instance_mask_paths": [f"instance_mask/{scene}/{frame.number}.bin" for frame in mine],
                "pts_semantic_mask_paths": [f"semantic_mask/{scene}/{frame.number}.bin" for frame in mine],
                "annos": {"axis_align_matrix": mine[0].axis_align},
            }
        )
    return entries


def scans_v2(frames: list[RawFrame], *, root: str, categories: dict[str, int]) -> dict[str, Any]:
    entries = scans_v1(frames, root=root)
    for entry in entries:
        entry["axis_align_matrix"] = entry.pop("annos")["axis_align_matrix"].tolist()
    return {"metainfo": _metainfo(categories), "data_list": entries}


def with_clip(content: Any) -> Any:
    """What the fork's --pack-clip adds: below 2D, without the folder color, frames of every 200th or 40th number."""
    content = copy.deepcopy(content)
    for entry in content["data_list"] if isinstance(content, dict) else content:
        if "img_paths" in entry:
            entry["clip_feat_paths"] = [_clip(path) for path in entry["img_paths"] if _number(path) % 40 == 0]
        elif _number(entry["img_path"]) % 200 == 0:
            entry["clip_feat_path"] = _clip(entry["img_path"])
    return content


def dump(content: Any, path: Path, *, protocol: int = 2, numpy_1: bool = True) -> None:
    raw = pickle.dumps(content, protocol=protocol)
    path.write_bytes(_as_numpy_1(raw, protocol) if numpy_1 else raw)


def _as_numpy_1(raw: bytes, protocol: int) -> bytes:
    if protocol < 4:  # names are lines
        return raw.replace(b"cnumpy._core.", b"cnumpy.core.")
    # Names carry their length, and so do frames, which are dropped: pickles are valid without them.
    for start in reversed([at for op, _, at in pickletools.genops(raw) if op.name == "FRAME"]):
        raw = raw[:start] + raw[start + 9 :]
    for module in (b"multiarray", b"numeric"):
        new, old = b"numpy.core." + module, b"numpy._core." + module
        raw = raw.replace(bytes([len(old)]) + old, bytes([len(new)]) + new)
    return raw


def _metainfo(categories: dict[str, int]) -> dict[str, Any]:
    return {"categories": categories, "dataset": "scannet200_sv", "info_version": "1.1"}


def _clip(image: str) -> str:
    below = image.split("/2D/")[1] if "/2D/" in image else image.removeprefix("2D/")
    scene, _, file = below.split("/")
    return f"clip_feat/{scene}/{file.removesuffix('.jpg')}.pt"


def _number(image: str) -> int:
    return int(osp.basename(image).removesuffix(".jpg"))
