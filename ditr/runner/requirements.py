"""What a user has to bring, looked for before the first run starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from ditr.catalog import locate_checkpoint, locate_dataset, locate_maps
from ditr.errors import Code, DitrError
from ditr.progress import Progress, silent
from ditr.spec.entries import FolderEntry, GivenEntry, NetworkEntry
from ditr.spec.feature_maps import is_per_point, map_shape
from ditr.spec.models import DatasetSpec, FeatureSpec, Spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.data.dataset import Dataset

_Open = Callable[[DatasetSpec], "Dataset"]


def require_inputs(specs: Sequence[Spec], *, registry: Registry, progress: Progress = silent) -> None:
    """Looks for all data sets, checkpoints and weights of feature sources that the specs name.

    The user's data sets are screened, so that one that no run starts on is known before another's run begins.

    Raises
    ------
    DitrError: with every missing thing.
    """
    opened: _Open = cache(partial(_open, registry=registry, progress=progress))
    missing: dict[str, DitrError] = {}  # by its text, for several specs may lack the same
    for spec in specs:
        for require in (
            partial(_require_dataset, spec, registry, opened),
            partial(_require_checkpoint, spec, registry),
            partial(_require_features, spec, registry, opened),
        ):
            if error := _error_of(require):
                missing.setdefault(str(error), error)
    if len(missing) == 1:
        raise next(iter(missing.values()))
    if missing:
        each = "\n".join(missing)
        raise DitrError(f"{len(missing)} things are missing, so nothing was started\n{each}", code=Code.RUN)


def _error_of(require: Callable[[], None]) -> DitrError | None:
    try:
        require()
    except DitrError as error:
        return error
    return None


def _open(dataset: DatasetSpec, *, registry: Registry, progress: Progress) -> Dataset:
    from ditr.data_check.screening import open_screened

    return open_screened(dataset, registry=registry, progress=progress).dataset


def _require_dataset(spec: Spec, registry: Registry, opened: _Open) -> None:
    from ditr.data.dataset import SPLITS

    if isinstance(registry.dataset(spec.dataset.name), FolderEntry):
        dataset = opened(spec.dataset)
        for split in SPLITS:
            dataset.require_labels(split)


def _require_checkpoint(spec: Spec, registry: Registry) -> None:
    if spec.checkpoint is not None:
        locate_checkpoint(spec.checkpoint, registry=registry)


def _require_features(spec: Spec, registry: Registry, opened: _Open) -> None:
    """Fetches a source's published weights now, if maps have to be computed; precomputed maps have to be there."""
    features = spec.read_features
    if features is None:
        return
    entry = registry.features(features.source)
    if isinstance(entry, GivenEntry):
        _require_maps(entry, opened(spec.dataset))
    elif features.mode == "online" or _lacks_maps(features, entry, spec.dataset, registry, opened):
        from ditr.features.sources import require_source

        require_source(features, entry=entry)


def _require_maps(entry: GivenEntry, dataset: Dataset) -> None:
    from ditr.features.precomputed_maps import PrecomputedMaps

    frame_ids = dataset.ids
    maps = PrecomputedMaps(locate_maps(entry, dataset_root=dataset.root), entry=entry)
    maps.require(frame_ids)
    first = maps.read(frame_ids[0])  # a wrong shape is usually that of all maps
    if is_per_point(entry):
        from ditr.data.samples import for_points

        frames, index = dataset.find(frame_ids[0])
        for_points(first, len(frames.frame(index).points), frame_id=frame_ids[0])


def _lacks_maps(
    features: FeatureSpec, entry: NetworkEntry, dataset: DatasetSpec, registry: Registry, opened: _Open
) -> bool:
    dataset_entry = registry.dataset(dataset.name)
    embedded = not isinstance(dataset_entry, FolderEntry)
    if embedded and not locate_dataset(dataset.name, dataset_entry).is_dir():
        return True
    from ditr.features.extract import store_folder
    from ditr.features.store import FeatureStore

    there = opened(dataset)
    folder = store_folder(spec=features, entry=entry, dataset=there)
    return bool(FeatureStore(folder, shape=map_shape(features, entry)).missing(there.ids))
