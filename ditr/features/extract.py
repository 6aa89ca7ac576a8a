"""Makes the feature maps that are needed and not there yet."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ditr import paths, plugins
from ditr.catalog import locate_maps, weights_stamp
from ditr.data.dataset import Dataset
from ditr.data.scannet_sv import FrameSet
from ditr.errors import Code, DitrError
from ditr.features.decoding import ImageRequest, expect
from ditr.features.fused_vit import make_fast
from ditr.features.pipeline import WHAT, make_maps
from ditr.features.precomputed_maps import PrecomputedMaps
from ditr.features.sources import FeatureSource, load_source
from ditr.features.store import LOCK, FeatureStore, Maps
from ditr.progress import Progress, silent
from ditr.spec.entries import GivenEntry, NetworkEntry, PythonEntry, VitEntry
from ditr.spec.feature_maps import Source, map_shape, weights_of
from ditr.spec.models import FeatureSpec

SPARE_BYTES = 512 * 2**20
"""Left free on the cache's file system by an extraction that starts."""
_LOOK_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What became of the maps that were asked for."""

    maps: Maps
    folder: Path
    made: int
    present: int
    """Those that were there."""
    seconds: float
    """What making them took, with loading the source."""
    bytes: int
    """Of what was made."""


def ensure_features(
    frames: Sequence[FrameSet],
    *,
    spec: FeatureSpec,
    entry: Source,
    dataset: Dataset,
    device: torch.device,
    progress: Progress = silent,
) -> Maps:
    """``extract`` for who reads the maps."""
    return extract(frames, spec=spec, entry=entry, dataset=dataset, device=device, progress=progress).maps


def extract(
    frames: Sequence[FrameSet],
    *,
    spec: FeatureSpec,
    entry: Source,
    dataset: Dataset,
    device: torch.device,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Extraction:
    """One map for every frame; what is missing is computed, whatever is there stays.

    Several processes may ask at once: one computes, the others wait. What a killed one made is kept. Precomputed maps
    are only looked for.

    Raises
    ------
    DitrError: the source cannot be loaded, an image is missing or damaged, a precomputed map is missing, the disk is
        too small, or the folder's maps were made with other weights than the source has now. The last is looked at even
        if no map is missing: a weight file can change under its name.
    """
    ids = [frame_id for part in frames for frame_id in part.ids]
    if isinstance(entry, GivenEntry):
        found = PrecomputedMaps(locate_maps(entry, dataset_root=dataset.root), entry=entry, frame_ids=ids)
        found.require(ids)
        return Extraction(maps=found, folder=found.folder, made=0, present=len(ids), seconds=0, bytes=0)
    maps = FeatureStore(store_folder(spec=spec, entry=entry, dataset=dataset), shape=map_shape(spec, entry))
    began, missing = time.monotonic(), list[ImageRequest]()
    stamp = weights_stamp(weights_of(spec, entry))
    if not _settled(maps, ids, stamp):
        maps.folder.mkdir(parents=True, exist_ok=True)
        with _alone(maps, ids, progress):
            if maps.manifest() is None:
                maps.clear()  # whatever lies here, nobody knows by which weights it was made
            maps.recover(ids)
            missing = _missing(frames, maps)  # another process may have made them meanwhile
            if missing or not _stamped(maps, stamp):
                _require_space(maps, len(missing), say)
                expect(len(missing))
                source = load_source(spec, entry=entry, device=device)
                _agree_on_manifest(maps, source=source, stamp=stamp, dataset=dataset)
                _make(missing, source=source, store=maps, progress=progress)
    return Extraction(
        maps=maps,
        folder=maps.folder,
        made=len(missing),
        present=len(ids) - len(missing),
        seconds=time.monotonic() - began,
        bytes=len(missing) * maps.map_bytes,
    )


def store_folder(*, spec: FeatureSpec, entry: NetworkEntry, dataset: Dataset) -> Path:
    """Where the maps of this data by this source at this size are; any change of one of them is another folder."""
    content = json.dumps(_numeric_content(spec, entry), sort_keys=True)
    source = f"{spec.source}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    height, width = spec.input_size or (0, 0)
    return paths.cache_dir() / "features" / f"{dataset.name}-{dataset.digest[:12]}" / f"{source}-{height}x{width}"


def _numeric_content(spec: FeatureSpec, entry: NetworkEntry) -> dict[str, Any]:
    """What of a spec, an entry and the user's code can change a stored map."""
    of_spec = spec.model_dump(mode="json", include={"input_size", "resize", "dtype"})
    if isinstance(entry, VitEntry):
        of_spec["layers"] = list(spec.layers)
    left_out = {"description", "licence", "licence_url", "sizes", "weights"}
    weights = weights_of(spec, entry).model_dump(mode="json", exclude={"url"})
    content = {"spec": of_spec, "entry": entry.model_dump(mode="json", exclude=left_out), "weights": weights}
    return content | code_of(entry)


def code_of(entry: NetworkEntry) -> dict[str, str]:
    """The digest of a user's code, for a key or a manifest; nothing of timm's models, whose versions are pinned."""
    return {"code_digest": plugins.code_digest(entry.module)} if isinstance(entry, PythonEntry) else {}


def _missing(frames: Sequence[FrameSet], store: FeatureStore) -> list[ImageRequest]:
    absent = set(store.missing(frame_id for part in frames for frame_id in part.ids))
    return [
        ImageRequest(part, index) for part in frames for index, frame_id in enumerate(part.ids) if frame_id in absent
    ]


def _settled(store: FeatureStore, ids: Sequence[str], stamp: str | None) -> bool:
    """Whether there is nothing to do."""
    return not store.missing(ids) and _stamped(store, stamp) and all(store.digest(frame_id) for frame_id in ids)


def _stamped(store: FeatureStore, stamp: str | None) -> bool:
    """Whether the maps are known to be of these weights; without a file here, their manifest's word is taken."""
    manifest = store.manifest()
    return manifest is not None and (stamp is None or manifest.get("weights_stamp") == stamp)


@contextmanager
def _alone(store: FeatureStore, ids: Sequence[str], progress: Progress) -> Iterator[None]:
    """Holds the folder's lock; while another process does, shows how far that is."""
    lock, waited = FileLock(store.folder / LOCK), False
    what = f"{WHAT}, made by another process"
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_LOOK_S if waited else 0)
        except Timeout:
            waited = True
            progress(what, min(len(ids) - len(store.missing(ids)), len(ids) - 1), len(ids))
    if waited:
        progress(what, len(ids), len(ids))
    try:
        yield
    finally:
        lock.release()


def _make(missing: Sequence[ImageRequest], *, source: FeatureSource, store: FeatureStore, progress: Progress) -> None:
    """The source is made fast here, after its weights were compared as they are."""
    if not missing:
        return
    form = make_fast(source, images=len(missing))
    kind = source.device.type if source.device.type == "cpu" else torch.cuda.get_device_name(source.device)
    _note_computed_on(store, f"{kind}, {form}")
    make_maps(missing, source=source, store=store, progress=progress)


def _require_space(store: FeatureStore, count: int, say: Callable[[str], None]) -> None:
    needed, free = count * store.map_bytes, shutil.disk_usage(store.folder).free
    numbers = f"{count} maps need {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free"
    if count:
        say(f"  {WHAT}: {numbers}")
    if count and needed + SPARE_BYTES > free:
        raise DitrError(
            f"the disk is too small for the 2D feature maps: {numbers}, of which {SPARE_BYTES / 2**30:.2f} GiB are "
            "left alone",
            code=Code.ENVIRONMENT,
            where=str(store.folder),
            fix="let DITR_CACHE name a folder on a larger disk, or delete maps (`ditr features ls`, `... rm`)",
        )


def _agree_on_manifest(store: FeatureStore, *, source: FeatureSource, stamp: str | None, dataset: Dataset) -> None:
    """Writes what the folder's maps are made of; maps of two different sets of weights never share a folder."""
    before, spec = store.manifest(), source.spec
    manifest: dict[str, Any] = {
        "source": spec.source,
        "entry": source.entry.model_dump(mode="json"),
        "weights": weights_of(spec, source.entry).model_dump(mode="json"),
        "weights_digest": source.weights_digest(),
        "weights_stamp": stamp or source.weights_stamp,
        "input_size": list(spec.input_size or ()),
        "resize": spec.resize,
        "layers": list(spec.layers),
        "computed_in": spec.dtype,
        "computed_on": [] if before is None else before["computed_on"],
        "dataset": dataset.name,
        "dataset_digest": dataset.digest,
        "frames": len(dataset),
        "shape": list(store.shape),
        "dtype": "float16",
    } | code_of(source.entry)
    if before is not None and before["weights_digest"] != manifest["weights_digest"]:
        raise DitrError(
            f"the maps in this folder were made with other weights than {spec.source} has now",
            code=Code.FEATURES,
            where=str(store.folder),
            fix=f"restore the weights, or delete {store.folder} to make all maps again",
        )
    store.write_manifest(manifest)


def _note_computed_on(store: FeatureStore, device: str) -> None:
    """One device's maps differ from another's by rounding."""
    manifest = store.manifest()
    assert manifest is not None
    if device not in manifest["computed_on"]:
        store.write_manifest({**manifest, "computed_on": [*manifest["computed_on"], device]})
