"""What a spec costs, as far as it can be known before anything starts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ditr.catalog import locate_dataset
from ditr.runner.feature_inputs import FeatureInputs, sample_set
from ditr.runner.inputs import fresh_model
from ditr.spec.entries import GivenEntry, PythonEntry, SynthRoomsEntry
from ditr.spec.execution import with_engine
from ditr.spec.feature_maps import is_per_point, map_channels, map_covers, map_shape
from ditr.spec.models import ScheduleSpec, Spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.data.dataset import Dataset
    from ditr.data.samples import SampleSet
    from ditr.data.scannet_sv import FrameSet
    from ditr.model.esam import EsamSingleView
    from ditr.model.flops import Flops

SAMPLED_FRAMES = 4


@dataclass(frozen=True, kw_only=True)
class MapCosts:
    """Of the 2D feature maps that a spec reads."""

    missing: int | None = None
    """To be made first; 0 where they are computed in each step, None where there are no data."""
    present: int | None = None
    bytes_each: int = 0
    """On disk; 0 where none is stored."""
    flops_each: int | None = None
    """Of the 2D source for one image; None where no source computes them."""
    store: Path | None = None
    """Their folder, which several specs may share; None where it cannot be known, or none is stored."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one run of a spec."""

    weights: Mapping[str, int]
    """Numbers that training changes, by part of the model: backbone, pool, decoder, and those of the fusion."""
    frames: tuple[int, int] | None
    """To train on and to evaluate; None where the data are not on this machine."""
    steps: int | None
    """Updates; None where the data are not on this machine."""
    maps: MapCosts | None
    """None without a fusion."""
    forward: Flops | None
    """Of the model for one frame, without its 2D source: mean of a few frames; None without data. A training step
    takes about three times as many for each frame."""

    @property
    def total_weights(self) -> int:
        return sum(self.weights.values())


def costs(specs: Sequence[Spec], *, registry: Registry, make_data: bool = False) -> tuple[Costs, ...]:
    """Builds the models, and looks at what data and maps there are.

    Makes none of them, but for embedded data sets with ``make_data``.
    """
    sets: dict[str, Dataset | None] = {}
    known: dict[str, tuple[dict[str, int], Flops | None]] = {}
    found = []
    for spec in specs:
        name = spec.dataset.name
        if name not in sets:
            sets[name] = _data_if_there(name, registry, make=make_data)
        if alike(spec) not in known:
            known[alike(spec)] = _of_the_model(spec, dataset=sets[name], registry=registry)
        frames = _frames(name, sets[name], registry)
        steps = spec.schedule.epochs * math.ceil(frames[0] / spec.schedule.batch_size) if frames else None
        maps = _maps(spec, frames=frames, dataset=sets[name], registry=registry)
        weights, forward = known[alike(spec)]
        found.append(Costs(weights=weights, frames=frames, steps=steps, maps=maps, forward=forward))
    return tuple(found)


def alike(spec: Spec) -> str:
    """Equal for specs whose steps cost the same."""
    schedule = ScheduleSpec(batch_size=spec.schedule.batch_size)
    words = {"name": "any", "description": "", "tags": (), "seeds": (0,), "checkpoint": None, "schedule": schedule}
    return spec.model_copy(update=words).model_dump_json()


def samples_without_maps(
    spec: Spec, frames: FrameSet, *, features: FeatureInputs, augmented: bool = False
) -> SampleSet:
    """The frames with maps of zeros where a run reads stored ones: the same shapes, and so the same costs."""
    from ditr.features.controls import ZeroMaps

    stored = features.shape is not None and not features.online
    read = ZeroMaps(features.shape) if stored and features.shape else None
    return sample_set(frames, spec=spec, seed=0, features=features, augmented=augmented, read=read)


def stored_features(spec: Spec, *, registry: Registry) -> FeatureInputs:
    """What a run knows of its 2D features before any map is read, as if they were stored."""
    from ditr.data.batch import as_it_is

    read = spec.read_features
    if read is None:
        return FeatureInputs(encode=as_it_is)
    entry = registry.features(read.source)
    return FeatureInputs(
        encode=as_it_is,
        channels=map_channels(read, entry),
        shape=map_shape(read, entry),
        map_hw=map_covers(read, entry),
        per_point=is_per_point(entry),
    )


def _of_the_model(spec: Spec, *, dataset: Dataset | None, registry: Registry) -> tuple[dict[str, int], Flops | None]:
    features = stored_features(spec, registry=registry)
    # On the CPU; a product is one with any engine.
    model = fresh_model(with_engine(spec, "minkowski"), seed=0, feature_channels=features.channels)
    counts: Counter[str] = Counter()
    for name, weight in model.named_parameters():
        counts[name.partition(".")[0]] += weight.numel()
    if dataset is None:
        return dict(counts), None
    return dict(counts), _forward(model, samples_without_maps(spec, dataset.train, features=features))


def _forward(model: EsamSingleView, samples: SampleSet) -> Flops:
    from ditr.data.batch import Batch
    from ditr.data.frame_view import spread_evenly
    from ditr.model.flops import Flops, forward_flops

    model.eval()
    chosen = sorted(spread_evenly(SAMPLED_FRAMES, total=len(samples)))
    each = [forward_flops(model, Batch(samples=(samples[index],))) for index in chosen]
    sparse, dense = (sum(values) // len(each) for values in ([one.sparse for one in each], [one.dense for one in each]))
    return Flops(sparse=sparse, dense=dense)


def _data_if_there(name: str, registry: Registry, *, make: bool) -> Dataset | None:
    from ditr.data.dataset import open_dataset
    from ditr.data.scannet_sv import MANIFEST
    from ditr.rooms import make_missing

    if make:
        make_missing(name, registry=registry)
    entry = registry.dataset(name)
    root = locate_dataset(name, entry)
    there = (root / MANIFEST).is_file() if isinstance(entry, SynthRoomsEntry) else root.is_dir()
    return open_dataset(name, registry=registry) if there else None


def _frames(name: str, dataset: Dataset | None, registry: Registry) -> tuple[int, int] | None:
    """Those of an embedded set are known before it is made."""
    entry = registry.dataset(name)
    if dataset is not None:
        return len(dataset.train), len(dataset.val)
    if isinstance(entry, SynthRoomsEntry):
        return entry.train.scenes * entry.train.frames, entry.val.scenes * entry.val.frames
    return None


def _maps(
    spec: Spec, *, frames: tuple[int, int] | None, dataset: Dataset | None, registry: Registry
) -> MapCosts | None:
    features = spec.read_features
    if features is None:
        return None
    source = registry.features(features.source)
    if isinstance(source, GivenEntry):
        return MapCosts(missing=0, present=sum(frames) if frames else None)
    from ditr.features.extract import store_folder
    from ditr.features.sources import source_flops
    from ditr.features.store import FeatureStore

    flops = None if isinstance(source, PythonEntry) else source_flops(features, entry=source)
    if features.mode == "online":
        return MapCosts(missing=0, present=0, flops_each=flops)
    shape = map_shape(features, source)
    map_bytes = FeatureStore(Path(), shape=shape).map_bytes
    if dataset is None:  # an embedded set that is not made has no maps; of the user's, who knows
        missing, present = (sum(frames), 0) if frames else (None, None)
        return MapCosts(missing=missing, present=present, bytes_each=map_bytes, flops_each=flops)
    folder = store_folder(spec=features, entry=source, dataset=dataset)
    ids = dataset.ids
    lacks = len(FeatureStore(folder, shape=shape).missing(ids))
    return MapCosts(missing=lacks, present=len(ids) - lacks, bytes_each=map_bytes, flops_each=flops, store=folder)
