"""Files of words: specs, entries, project files, lists, logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np

from ditr.data.prepared import skipped_frames
from ditr.data.scene_intrinsics import read_scene_intrinsics
from ditr.data_check.frame_list import read_frame_list
from ditr.geometry.camera import SCANNET_SV_INTRINSICS
from ditr.project import find_project
from ditr.scannet.esam_log import read_esam_log
from ditr.scannet.scan import read_label_map
from ditr.scannet.scene_text import read_axis_alignment, read_depth_intrinsics
from ditr.spec.load import load_all
from ditr.spec.registry import Registry
from tests.damage.kind import Kind, of_file
from tests.reference import mmengine_log

ROOT = Path(__file__).parents[2]
TRAINING = mmengine_log.Training(epochs=2, iterations=110, validations={2: (0.2, 0.4, 0.6)})
SPEC = """\
extends: base.yaml
name: arm
description: an arm that is damaged
tags: [one, two]
fusion:
  bifusion: {gate: lite}
  injection: {scales: [8, 4], target: up, pooling: max, projection: linear, init: zero}
schedule: {epochs: 2, batch_size: 4, learning_rate: 1.0e-4, validate_every: 2}
seeds: [0, 1]
matrix:
  product: {schedule.weight_decay: [0.01, 0.05]}
"""
CAMERA = "fx: 577.870605, fy: 577.870605, cx: 319.5, cy: 239.5, width: 640, height: 480"
ENTRIES = {
    "datasets": f"kind: folder\ndescription: mine\npath: mine\ninfos: {{train: a.pkl, val: b.pkl}}\n"
    f"intrinsics: {{{CAMERA}}}\nclasses: {{1: chair, 2: table, 3: wall}}\nstuff: [wall]\n",
    "features": (ROOT / "registry/features/vit_mini14_reg4.yaml").read_text(),
    "checkpoints": (ROOT / "registry/checkpoints/synthrooms_res16unet_mini.yaml").read_text(),
}
PROJECT = '[folders]\nruns = "out/runs"\ndata = "data"\n\n[fusion]\nfilm = "parts.film:Film"\n'
SCENE = "axisAlignment = 0.5 0.8 0 1 -0.8 0.5 0 2 0 0 1 0 0 0 0 1\ncolorHeight = 968\ndepthHeight = 480\n"
SCENE += "depthWidth = 640\nfx_depth = 571.25\nfy_depth = 569.5\nmx_depth = 318.75\nmy_depth = 241.25\n"
PREPARED = '{"made_by": "ditr data import", "settings": {"seed": 0}, "finished": true, "frames": 4,\n'
PREPARED += ' "skipped": {"scene0000_00_0": "the pose is not rigid"}, "failed": {}}\n'


def text(name: str, content: str) -> Callable[[Path], Path]:
    """Writes it under the name."""

    def write(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    return write


def write_spec(folder: Path) -> Path:
    text("base.yaml", (ROOT / "tests/spec/good/base.yaml").read_text())(folder)
    return text("arm.yaml", SPEC)(folder)


def read_spec(path: Path) -> object:
    return [loaded.spec for loaded in load_all(path, registry=Registry(ROOT / "tests/spec/registry"))]


def read_camera(path: Path) -> object:
    return read_scene_intrinsics(path.parents[1], scenes=[path.stem], default=SCANNET_SV_INTRINSICS)


def read_scene_text(path: Path) -> object:
    camera = read_depth_intrinsics(path, width=640, height=480)
    return [read_axis_alignment(path).tolist(), asdict(camera)]


def damaged(name: str, content: str, read: Callable[[Path], object]) -> Kind:
    """The kind of a text; nothing tells a number from another."""
    return of_file(text(name, content), read, guarded=False)


KINDS = {
    "spec": of_file(write_spec, read_spec, guarded=False),
    "data set entry": damaged(
        "datasets/a.yaml", ENTRIES["datasets"], lambda path: Registry(path.parents[1]).dataset("a")
    ),
    "source entry": damaged(
        "features/a.yaml", ENTRIES["features"], lambda path: Registry(path.parents[1]).features("a")
    ),
    "checkpoint entry": damaged(
        "checkpoints/a.yaml", ENTRIES["checkpoints"], lambda path: Registry(path.parents[1]).checkpoint("a")
    ),
    "ditr.toml": damaged("ditr.toml", PROJECT, lambda path: find_project(path.parent)),
    "prepared.json": damaged("prepared.json", PREPARED, lambda path: skipped_frames(path.parent)),
    "frame list": damaged(
        "list.txt", "".join(f"scene0000_0{scene}_{20 * at}\n" for scene in range(3) for at in range(4)), read_frame_list
    ),
    "intrinsics of a scene": damaged(
        "intrinsics/scene0000_00.txt", "571.5 0 320.5 0\n0 571.5 240.5 0\n0 0 1 0\n0 0 0 1\n", read_camera
    ),
    "text of a scan": damaged("scene0000_00.txt", SCENE, read_scene_text),
    "table of labels": damaged(
        "labels.tsv", "id\traw_category\tcategory\n1\twall\twall\n2\tchair\tchair\n22\tshelf\tshelf\n", read_label_map
    ),
    "mmengine's log": damaged(
        "a.log", mmengine_log.text_log(TRAINING, began=datetime(2024, 5, 1, 10), chatter=False), read_esam_log
    ),
    "mmengine's scalars": damaged("scalars.json", mmengine_log.scalars(TRAINING), read_esam_log),
}
assert np.isfinite(TRAINING.validations[2]).all()
