"""Makes the feature maps that a run needs and does not find."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from ditr import paths
from ditr.catalog import weights_stamp
from ditr.data.dataset import Dataset
from ditr.data.scannet_sv import FrameSet
from ditr.errors import Code, DitrError
from ditr.features.sources import FeatureSource, load_source
from ditr.features.store import FeatureStore
from ditr.progress import Progress, silent
from ditr.spec.entries import VitEntry
from ditr.spec.feature_maps import map_shape, weights_of
from ditr.spec.models import FeatureSpec

BATCH = 8
"""Images encoded at once."""


def ensure_features(
    frames: Sequence[FrameSet],
    *,
    spec: FeatureSpec,
    entry: VitEntry,
    dataset: Dataset,
    device: torch.device,
    progress: Progress = silent,
) -> FeatureStore:
    """The store with one map for every frame; what is missing is computed, whatever is there stays.

    Several processes may ask at once: one computes, the others wait. Raises DitrError if the source cannot be loaded,
    an image is missing or damaged, or the folder's maps were made with other weights than the source has now. The last
    is looked at even if no map is missing: a weight file can change under its name.
    """
    store = FeatureStore(store_folder(spec=spec, entry=entry, dataset=dataset), shape=map_shape(spec, entry))
    stamp = weights_stamp(weights_of(spec, entry))
    if not _missing(frames, store) and _stamped(store, stamp):
        return store
    store.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(store.folder / ".lock"):
        missing = _missing(frames, store)  # another process may have made them meanwhile
        if missing or not _stamped(store, stamp):
            source = load_source(spec, entry=entry, device=device)
            _agree_on_manifest(store, source=source, stamp=stamp, spec=spec, dataset=dataset)
            _extract(missing, source=source, store=store, progress=progress)
    return store


def store_folder(*, spec: FeatureSpec, entry: VitEntry, dataset: Dataset) -> Path:
    """Where the maps of this data by this source at this size are; any change of one of them is another folder."""
    content = json.dumps(_numeric_content(entry), sort_keys=True)
    source = f"{spec.source}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    height, width = spec.input_size or (0, 0)
    return paths.cache_dir() / "features" / f"{dataset.name}-{dataset.digest[:12]}" / f"{source}-{height}x{width}"


def _missing(frames: Sequence[FrameSet], store: FeatureStore) -> list[tuple[FrameSet, int]]:
    absent = set(store.missing(frame_id for part in frames for frame_id in part.ids))
    return [(part, index) for part in frames for index, frame_id in enumerate(part.ids) if frame_id in absent]


def _stamped(store: FeatureStore, stamp: str | None) -> bool:
    """Whether the maps are known to be of these weights; without a file here, their manifest's word is taken."""
    manifest = store.manifest()
    return manifest is not None and (stamp is None or manifest.get("weights_stamp") == stamp)


def _extract(
    missing: list[tuple[FrameSet, int]],
    *,
    source: FeatureSource,
    store: FeatureStore,
    progress: Progress,
) -> None:
    if missing:
        progress("2D features", 0, len(missing))
    done = 0
    for part in _batches(missing):
        images = np.stack([frames.image(index) for frames, index in part])
        maps = source.encode(images)
        for (frames, index), tokens in zip(part, maps, strict=True):
            store.write(frames.ids[index], tokens)
        done += len(part)
        progress("2D features", done, len(missing))


def _batches(missing: list[tuple[FrameSet, int]]) -> Iterator[list[tuple[FrameSet, int]]]:
    """Up to BATCH frames of one set, whose images are all of one size."""
    start = 0
    while start < len(missing):
        stop = start
        while stop < min(len(missing), start + BATCH) and missing[stop][0] is missing[start][0]:
            stop += 1
        yield missing[start:stop]
        start = stop


def _agree_on_manifest(
    store: FeatureStore, *, source: FeatureSource, stamp: str | None, spec: FeatureSpec, dataset: Dataset
) -> None:
    """Writes what the folder's maps are made of; maps of two different sets of weights never share a folder."""
    before = store.manifest()
    manifest: dict[str, Any] = {
        "source": spec.source,
        "entry": source.entry.model_dump(mode="json"),
        "weights_digest": source.weights_digest(),
        "weights_stamp": stamp,
        "input_size": list(spec.input_size or ()),
        "dataset": dataset.name,
        "dataset_digest": dataset.digest,
        "shape": list(store.shape),
        "dtype": "float16",
    }
    if before is not None and before["weights_digest"] != manifest["weights_digest"]:
        raise DitrError(
            f"the maps in this folder were made with other weights than {spec.source} has now",
            code=Code.FEATURES,
            where=str(store.folder),
            fix=f"restore the weights, or delete {store.folder} to make all maps again",
        )
    store.write_manifest(manifest)


def _numeric_content(entry: VitEntry) -> dict[str, Any]:
    """What of an entry can change a map."""
    return entry.model_dump(mode="json", exclude={"description": True, "licence": True, "weights": {"url"}})
