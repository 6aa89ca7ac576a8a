"""The smallest project that has everything: rooms, a captured scene, a log of another program, two arms."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tests.reference import captures
from tests.reference.mmengine_log import Training, text_log

ROOMS = """
kind: synthrooms
description: Two rooms.
seed: 0
first_scene: 9100
train: {scenes: 1, frames: 2}
val: {scenes: 1, frames: 1}
texture_share: 0.4
"""
BASE = """
extends: ditr:_base.yaml
dataset: {name: rooms}
checkpoint: null
model:
  voxel_size_m: 0.2
  backbone: {planes: [8, 8, 8, 8, 8, 8, 8, 8], stem_channels: 8}
  decoder: {width: 16, heads: 2, feedforward: 16, mask_levels: [superpoint, superpoint]}
augmentation: {elastic: null}
schedule: {epochs: 2, batch_size: 1, validate_every: 1}
tracking: {panels: 0}
execution: {workers: 0, device: cpu}
"""
ARMS = {
    "plain": "extends: _base.yaml\nname: plain\n",
    "fused": "extends: _base.yaml\nname: fused\nfusion: {bifusion: {gate: lite, width: 8}}\n",
}


def write_project(folder: Path) -> None:
    """Everything that the commands are given, and nothing that they make."""
    (folder / "specs").mkdir(parents=True)
    (folder / "registry/datasets").mkdir(parents=True)
    (folder / "ditr.toml").write_text('[folders]\ncache = "cache"\n')
    (folder / "registry/datasets/rooms.yaml").write_text(ROOMS)
    (folder / "specs/_base.yaml").write_text(BASE)
    for name, text in ARMS.items():
        (folder / f"specs/{name}.yaml").write_text(text)
    camera = captures.camera(160, 120)
    captures.rgbd(folder / "capture/desk", captures.takes(camera, count=3), camera)
    for seed, name in enumerate(("first", "second")):
        training = Training(epochs=2, iterations=100, validations=dict.fromkeys((1, 2), (0.1, 0.2, 0.3)), seed=seed)
        (folder / f"{name}.log").write_text(text_log(training, began=datetime(2026, 1, 1 + seed)))
