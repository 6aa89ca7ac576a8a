"""Frames to measure on: generated rooms of 20,000 points, as the training reads and augments them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ditr.data.batch import Batch, as_it_is, collate
from ditr.data.info_pickle import read_infos
from ditr.data.scannet_sv import INFO_FILES, FrameSet
from ditr.geometry.camera import SCANNET_SV_INTRINSICS
from ditr.progress import silent
from ditr.rooms import make
from ditr.runner.feature_inputs import FeatureInputs, sample_set
from ditr.spec.entries import SplitEntry, SynthRoomsEntry
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

SPEC = Path(__file__).resolve().parents[1] / "specs" / "scannet200_sv" / "baseline.yaml"


def generated_frames(folder: Path, *, count: int, workers: int) -> FrameSet:
    """``count`` frames, up to four views a room."""
    entry = SynthRoomsEntry(
        kind="synthrooms",
        description="Rooms to measure on.",
        seed=0,
        first_scene=9500,
        train=SplitEntry(scenes=-(-count // 4), frames=min(count, 4)),
        val=SplitEntry(scenes=1, frames=1),  # must hold a frame, which nobody reads
        texture_share=0.4,
    )
    make(entry, folder, workers=workers, progress=silent)
    return FrameSet(folder, infos=read_infos(folder / INFO_FILES["train"]), intrinsics=SCANNET_SV_INTRINSICS)


def generated_batch(size: int, *, workers: int = 8) -> Batch:
    """Of a 3D-only training on ScanNet200-SV, augmented."""
    spec = load_spec(SPEC, registry=Registry()).spec
    with tempfile.TemporaryDirectory() as folder:
        frames = generated_frames(Path(folder) / "rooms", count=size, workers=workers)
        samples = sample_set(frames, spec=spec, seed=0, features=FeatureInputs(encode=as_it_is), augmented=True)
        return collate([samples[index] for index in range(size)])
