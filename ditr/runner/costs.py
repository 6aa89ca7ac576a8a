"""What a spec costs, as far as it can be known before anything starts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ditr.catalog import locate_dataset
from ditr.runner.inputs import fresh_model, uses_features
from ditr.spec.entries import PrecomputedEntry, SynthRoomsEntry
from ditr.spec.feature_maps import map_channels, map_shape
from ditr.spec.models import Spec
from ditr.spec.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one run of a spec."""

    weights: Mapping[str, int]
    """Numbers that training changes, by part of the model: backbone, pool, decoder, and those of the fusion."""
    steps: int | None
    """Updates; None where the data are not on this machine."""
    missing_maps: int | None
    """2D feature maps to be made first; 0 without a fusion or with maps made online, None where there are no data."""
    map_bytes: int
    """Of one map on disk; 0 where none is stored."""

    @property
    def total_weights(self) -> int:
        return sum(self.weights.values())


def costs(spec: Spec, *, registry: Registry) -> Costs:
    """Builds the model, and looks at what data and maps there are; makes none."""
    missing, map_bytes = _maps(spec, registry)
    frames = _train_frames(spec, registry)
    return Costs(
        weights=weights(spec, registry=registry),
        steps=None if frames is None else spec.schedule.epochs * math.ceil(frames / spec.schedule.batch_size),
        missing_maps=missing,
        map_bytes=map_bytes,
    )


def weights(spec: Spec, *, registry: Registry) -> dict[str, int]:
    """Numbers that training changes, by part of the model, counted in the model itself."""
    channels = None
    if uses_features(spec) and spec.features is not None:
        channels = map_channels(spec.features, registry.features(spec.features.source))
    model = fresh_model(spec, seed=0, feature_channels=channels)
    counts: Counter[str] = Counter()
    for name, weight in model.named_parameters():
        counts[name.partition(".")[0]] += weight.numel()
    return dict(counts)


def _train_frames(spec: Spec, registry: Registry) -> int | None:
    entry = registry.dataset(spec.dataset.name)
    if isinstance(entry, SynthRoomsEntry):
        return entry.train.scenes * entry.train.frames
    if not locate_dataset(spec.dataset.name, entry).is_dir():
        return None
    from ditr.data.dataset import open_dataset

    return len(open_dataset(spec.dataset.name, registry=registry).train)


def _maps(spec: Spec, registry: Registry) -> tuple[int | None, int]:
    """How many maps are missing, and the bytes of one."""
    if not uses_features(spec) or spec.features is None or spec.features.mode == "online":
        return 0, 0
    source, entry = registry.features(spec.features.source), registry.dataset(spec.dataset.name)
    if isinstance(source, PrecomputedEntry):
        return 0, 0
    from ditr.data.dataset import open_dataset
    from ditr.features.extract import store_folder
    from ditr.features.store import FeatureStore

    shape = map_shape(spec.features, source)
    map_bytes = FeatureStore(Path(), shape=shape).map_bytes
    if not locate_dataset(spec.dataset.name, entry).is_dir():
        if not isinstance(entry, SynthRoomsEntry):
            return None, map_bytes
        return sum(split.scenes * split.frames for split in (entry.train, entry.val)), map_bytes
    dataset = open_dataset(spec.dataset.name, registry=registry)
    store = FeatureStore(store_folder(spec=spec.features, entry=source, dataset=dataset), shape=shape)
    return len(store.missing(dataset.train.ids + dataset.val.ids)), map_bytes
