"""Data sets of images alone, the smallest 2D source there is, and an extraction that a test can run in a process."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ditr.data.dataset import Dataset
from ditr.data.info_pickle import FrameInfo, InfoFile
from ditr.data.scannet_sv import FrameSet
from ditr.features import store
from ditr.features.extract import extract
from ditr.features.journal import Journal
from ditr.features.timm_models import import_timm
from ditr.geometry.camera import Intrinsics
from ditr.spec.models import FeatureSpec
from tests.reference.tiny_sources import VITS

ENTRY = VITS["dinov2_reg4"]
SPEC = FeatureSpec(source="tiny", input_size=(42, 56))
SMALL, WIDE = (48, 64), (48, 80)
"""Height and width of images."""


def image_dataset(root: Path, *, train: int, val: int, sizes: Sequence[tuple[int, int]] = (SMALL,)) -> Dataset:
    """Frames of noise, one a scene, whose images take the sizes in turn."""
    frames = [image_frames(root, scenes, sizes=sizes) for scenes in (range(train), range(train, train + val))]
    return Dataset(name="made", root=root, digest="0123456789abcdef" * 2, splits={"train": frames[0], "val": frames[1]})


def image_frames(root: Path, scenes: Sequence[int], *, sizes: Sequence[tuple[int, int]] = (SMALL,)) -> FrameSet:
    infos, cameras = [], {}
    for scene in scenes:
        name, image = f"scene{scene:04d}_00", f"2D/scene{scene:04d}_00/color/0.jpg"
        height, width = sizes[scene % len(sizes)]
        (root / image).parent.mkdir(parents=True)
        pixels = np.random.default_rng(scene).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / image)
        cameras[name] = Intrinsics(fx=60, fy=60, cx=width / 2, cy=height / 2, width=width, height=height)
        files = dict.fromkeys(("points_file", "superpoints_file", "instances_file", "semantics_file"), "none.bin")
        poses = {"pose_c2w": np.eye(4), "axis_align": np.eye(4)}
        infos.append(FrameInfo(scene=name, number="0", image=image, **files, **poses))  # type: ignore[arg-type]
    file = InfoFile(dataset="made", categories={}, frames=tuple(infos))
    return FrameSet(root, infos=file, intrinsics=cameras[infos[0].scene], scene_intrinsics=cameras)


def slow_extraction(dataset: Dataset, cache: Path, made: SimpleQueue[int]) -> None:
    """One in which a kill finds files half written, and files written whose digest is not."""
    os.environ["DITR_CACHE"] = str(cache)
    torch.set_num_threads(1)
    write_all, append = store._write_all, Journal.append

    def in_halves(file: Any, part: Any) -> None:
        half = len(part) // 2
        write_all(file, memoryview(part)[:half])
        time.sleep(0.01)
        write_all(file, memoryview(part)[half:])

    def late(journal: Journal, name: str, digest: str) -> None:
        time.sleep(0.01)
        append(journal, name, digest)

    store._write_all, Journal.append = in_halves, late  # type: ignore[method-assign]
    frames = [dataset.train, dataset.val]
    made.put(extract(frames, spec=SPEC, entry=ENTRY, dataset=dataset, device=torch.device("cpu")).made)


def slow_extractions(dataset: Dataset, cache: Path, times: int, pids: SimpleQueue[int]) -> None:
    """So many of them, each in a process of its own, one after the other; their ids, and how each ended, to ``pids``.

    One process imports what all need.
    """
    import_timm()
    for _ in range(times):
        pid = os.fork()
        if pid == 0:
            slow_extraction(dataset, cache, pids)
            os._exit(0)
        pids.put(pid)
        pids.put(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
