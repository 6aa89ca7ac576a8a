"""Stage 1, files: every frame has a map, which is the file that was written, of this data by this source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import xxhash

from ditr.checks.outcome import Check, Subject, at_most, yes_or_no
from ditr.features.sources import FeatureSource
from ditr.features.store import FeatureStore, Maps
from ditr.spec.feature_maps import weights_of
from ditr.spec.models import FeatureSpec

_NAMED = 3


def check_files(subject: Subject, *, source: FeatureSource | None, indices: Sequence[int]) -> Iterator[Check]:
    """Digests of the frames ``indices``, and what the folder says of itself; nothing where maps are computed online."""
    maps, spec = subject.maps, subject.spec.read_features
    if maps is None or spec is None:
        return
    missing = maps.missing(subject.frames.ids)
    fix = "`ditr features extract` makes missing maps" if isinstance(maps, FeatureStore) else "put them there"
    yield at_most(1, "maps_present", len(missing), limit=0, detail=some(missing, "without a map"), fix=fix)
    if isinstance(maps, FeatureStore):
        frames = [subject.frames.ids[index] for index in indices]
        yield _digests(maps, [frame for frame in frames if maps.path(frame).is_file()])
        yield _manifest(subject, maps, spec, source=source)
    else:
        yield _named_files(subject, maps)


def some(frames: Sequence[str], what: str) -> str:
    """``what``, and the first few of the frames; empty if there is none."""
    if not frames:
        return ""
    more = f" and {len(frames) - _NAMED} more" if len(frames) > _NAMED else ""
    return f"{what}: {', '.join(frames[:_NAMED])}{more}"


def _digests(maps: FeatureStore, frames: Sequence[str]) -> Check:
    """Each file is the one that the extraction wrote under this name."""
    written = FeatureStore(maps.folder, shape=maps.shape)  # reads the journal as it is now
    other = [
        frame for frame in frames if written.digest(frame) != xxhash.xxh3_128_hexdigest(maps.path(frame).read_bytes())
    ]
    fix = f"delete them under {maps.folder} and extract again"
    return at_most(1, "map_digest", len(other), limit=0, detail=some(other, "not the file that was written"), fix=fix)


def _manifest(subject: Subject, maps: Maps, spec: FeatureSpec, *, source: FeatureSource | None) -> Check:
    """What the folder says it holds is what the spec asks for, of this data, by the weights that the source has now."""
    limit = "of this spec, data set and weights"
    manifest = maps.manifest()
    if manifest is None:
        return yes_or_no(1, "manifest", False, limit=limit, detail="the folder of the maps does not say what they are")
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
    wrong = [
        f"{key} is {manifest.get(key)}, not {value}" for key, value in wanted.items() if manifest.get(key) != value
    ]
    fix = "delete the folder of the maps and extract again"
    return yes_or_no(1, "manifest", not wrong, limit=limit, detail="; ".join(wrong), fix=fix)


def _named_files(subject: Subject, maps: Maps) -> Check:
    """Where the info pickle names a frame's map (clip_feat_path), that file is the one which is read."""
    wrong = []
    for info in subject.frames.infos.frames:
        if info.features_file is None:
            continue
        named, read = subject.frames.root / info.features_file, maps.path(info.id)
        if not named.is_file():
            wrong.append(f"{info.id}: the info pickle names {named}, which does not exist")
        elif not read.is_file() or not named.samefile(read):
            wrong.append(f"{info.id}: the info pickle names {named}, but {read} is read")
    fix = "correct path or files of the registry entry, or pack the info pickle again"
    return at_most(1, "path_agreement", len(wrong), limit=0, detail="".join(wrong[:1]), fix=fix)
