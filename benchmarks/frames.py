"""Frames to measure on: generated rooms of 20,000 points, as the training reads and augments them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from ditr.data.batch import Batch, as_it_is, collate
from ditr.data.info_pickle import read_infos
from ditr.data.scannet_sv import INFO_FILES, FrameSet
from ditr.features.fused_vit import make_fast
from ditr.features.online_maps import OnlineMaps
from ditr.features.sources import load_source
from ditr.features.store import FeatureStore
from ditr.geometry.camera import SCANNET_SV_INTRINSICS
from ditr.progress import silent
from ditr.rooms import make
from ditr.runner.feature_inputs import FeatureInputs, sample_set
from ditr.spec.entries import PrecomputedEntry, SplitEntry, SynthRoomsEntry
from ditr.spec.feature_maps import map_channels, map_covers, map_shape
from ditr.spec.load import load_spec
from ditr.spec.models import SeededWeights, Spec
from ditr.spec.registry import Registry

SPEC = Path(__file__).resolve().parents[1] / "specs" / "scannet200_sv" / "baseline.yaml"


def generated_frames(folder: Path, *, count: int, workers: int) -> FrameSet:
    """``count`` frames, up to four views a room; those in the folder, if it is there."""
    entry = SynthRoomsEntry(
        kind="synthrooms",
        description="Rooms to measure on.",
        seed=0,
        first_scene=9500,
        train=SplitEntry(scenes=-(-count // 4), frames=min(count, 4)),
        val=SplitEntry(scenes=1, frames=1),  # must hold a frame, which nobody reads
        texture_share=0.4,
    )
    if not folder.exists():
        make(entry, folder, workers=workers, progress=silent)
    return FrameSet(folder, infos=read_infos(folder / INFO_FILES["train"]), intrinsics=SCANNET_SV_INTRINSICS)


def noise_inputs(spec: Spec, frames: FrameSet, *, device: torch.device) -> FeatureInputs:
    """A stored map of noise for each frame, or the source with random weights where maps are computed online; neither
    without a fusion. What maps hold changes nothing of what a step costs."""
    features = spec.read_features
    if features is None:
        return FeatureInputs(encode=as_it_is)
    entry = Registry().features(features.source)
    channels, covers = map_channels(features, entry), map_covers(features, entry)
    if features.mode == "online":
        assert not isinstance(entry, PrecomputedEntry), "precomputed maps are stored ones"
        drawn = features.model_copy(update={"weights": SeededWeights(kind="seeded", seed=0)})
        source = load_source(drawn, entry=entry, device=device)
        make_fast(source, images=1)
        return FeatureInputs(encode=OnlineMaps(source), online=True, channels=channels, map_hw=covers)
    store = FeatureStore(frames.root / "maps", shape=map_shape(features, entry))
    for index, frame_id in enumerate(store.missing(frames.ids)):
        noise = torch.Generator().manual_seed(index)
        store.write(frame_id, torch.randn(store.shape, generator=noise).half())
    return FeatureInputs(encode=as_it_is, maps=store, channels=channels, map_hw=covers)


def generated_batch(size: int, *, workers: int = 8) -> Batch:
    """Of a 3D-only training on ScanNet200-SV, augmented."""
    spec = load_spec(SPEC, registry=Registry()).spec
    with tempfile.TemporaryDirectory() as folder:
        frames = generated_frames(Path(folder) / "rooms", count=size, workers=workers)
        samples = sample_set(frames, spec=spec, seed=0, features=FeatureInputs(encode=as_it_is), augmented=True)
        return collate([samples[index] for index in range(size)])
