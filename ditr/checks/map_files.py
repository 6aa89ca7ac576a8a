"""Stage 1, files: every frame has a map, which is the file that was written, of this data by this source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import xxhash

from ditr.checks.measure import Measurements
from ditr.checks.subject import Subject
from ditr.checks.tables import EXTRACTED, PRECOMPUTED, TABLES
from ditr.features.extract import code_of
from ditr.features.sources import FeatureSource
from ditr.features.store import FeatureStore, Maps
from ditr.spec.feature_maps import is_per_point, weights_of
from ditr.spec.models import FeatureSpec


def measure_files(subject: Subject, *, source: FeatureSource | None, indices: Sequence[int]) -> Iterator[Measurements]:
    """Digests of the frames ``indices``, and what the folder says of itself; nothing where maps are computed online."""
    maps, spec = subject.maps, subject.spec.read_features
    if maps is None or spec is None:
        return
    per_point = subject.entry is not None and is_per_point(subject.entry)
    given = TABLES if per_point else PRECOMPUTED
    found = Measurements(EXTRACTED if isinstance(maps, FeatureStore) else given)
    for frame in maps.missing(subject.frames.ids):
        found.take("maps_present", 1, frame, note="without a map")
    if isinstance(maps, FeatureStore):
        _digests(maps, [subject.frames.ids[index] for index in indices], into=found)
        _manifest(subject, maps, spec, source=source, into=found)
    elif not per_point:
        _named_files(subject, maps, into=found)
    yield found


def _digests(maps: FeatureStore, frames: Sequence[str], *, into: Measurements) -> None:
    """Each file is the one that the extraction wrote under this name."""
    written = FeatureStore(maps.folder, shape=maps.shape)  # reads the journal as it is now
    for frame in frames:
        path = maps.path(frame)
        if path.is_file() and written.digest(frame) != xxhash.xxh3_128_hexdigest(path.read_bytes()):
            into.take("map_digest", 1, frame, note=f"not the file that was written under {maps.folder}")


def _manifest(
    subject: Subject, maps: Maps, spec: FeatureSpec, *, source: FeatureSource | None, into: Measurements
) -> None:
    """What the folder says it holds is what the spec asks for, of this data, by the weights that the source has now."""
    manifest = maps.manifest()
    if manifest is None:
        into.take("manifest", False, note="the folder of the maps does not say what they are")
        return
    wanted: dict[str, Any] = {
        "source": spec.source,
        "input_size": list(spec.input_size or ()),
        "resize": spec.resize,
        "layers": list(spec.layers),
        "computed_in": spec.dtype,
        "dataset": subject.spec.dataset.name,
        "dataset_digest": subject.dataset_digest,
        "shape": list(maps.shape),
        "dtype": "float16",
    }
    if source is not None:
        wanted["weights_digest"] = source.weights_digest()
        wanted["weights"] = weights_of(spec, source.entry).model_dump(mode="json")
        wanted |= code_of(source.entry)
    wrong = [
        f"{key} is {manifest.get(key)}, not {value}" for key, value in wanted.items() if manifest.get(key) != value
    ]
    into.take("manifest", not wrong, note="; ".join(wrong))


def _named_files(subject: Subject, maps: Maps, *, into: Measurements) -> None:
    """Where the info pickle names a frame's map (clip_feat_path), that file is the one which is read."""
    for info in subject.frames.infos.frames:
        if info.features_file is None:
            continue
        named, read = subject.frames.root / info.features_file, maps.path(info.id)
        if not named.is_file():
            into.take("path_agreement", 1, info.id, note=f"the info pickle names {named}, which does not exist")
        elif not read.is_file() or not named.samefile(read):
            into.take("path_agreement", 1, info.id, note=f"the info pickle names {named}, but {read} is read")
