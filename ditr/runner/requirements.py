"""What a user has to bring, looked for before the first run starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ditr.catalog import locate_checkpoint, locate_dataset, locate_weights
from ditr.errors import Code, DitrError
from ditr.runner.inputs import uses_features
from ditr.spec.entries import FeatureEntry, FolderEntry, SeededWeights
from ditr.spec.models import Spec
from ditr.spec.registry import Registry


def require_inputs(specs: Sequence[Spec], *, registry: Registry) -> None:
    """Looks for all data sets, checkpoints and weights of feature sources that the specs name.

    Raises
    ------
    DitrError: with every missing thing.
    """
    missing: dict[str, DitrError] = {}
    for spec in specs:
        for require in (_require_dataset, _require_checkpoint, _require_features):
            if error := _error_of(require, spec, registry):
                missing.setdefault(str(error), error)
    if len(missing) == 1:
        raise next(iter(missing.values()))
    if missing:
        each = "\n".join(missing)
        raise DitrError(f"{len(missing)} things are missing, so nothing was started\n{each}", code=Code.RUN)


def _error_of(require: Callable[[Spec, Registry], None], spec: Spec, registry: Registry) -> DitrError | None:
    try:
        require(spec, registry)
    except DitrError as error:
        return error
    return None


def _require_dataset(spec: Spec, registry: Registry) -> None:
    entry = registry.dataset(spec.dataset.name)
    if isinstance(entry, FolderEntry) and not _is_whole(spec.dataset.name, entry):
        from ditr.data.dataset import open_dataset

        open_dataset(spec.dataset.name, registry=registry)  # says what is missing and what to do


def _require_checkpoint(spec: Spec, registry: Registry) -> None:
    if spec.checkpoint is not None:
        locate_checkpoint(spec.checkpoint, registry=registry)


def _require_features(spec: Spec, registry: Registry) -> None:
    """Fetches a source's published weights now, if maps have to be made and the user has no file of them."""
    if not uses_features(spec) or spec.features is None:
        return
    entry = registry.features(spec.features.source)
    if isinstance(entry.weights, SeededWeights) or locate_weights(entry.weights) is not None:
        return
    if _lacks_maps(spec, entry, registry):
        import torch

        from ditr.features.sources import load_source

        load_source(entry, device=torch.device("cpu"))


def _lacks_maps(spec: Spec, entry: FeatureEntry, registry: Registry) -> bool:
    assert spec.features is not None
    dataset_entry = registry.dataset(spec.dataset.name)
    if isinstance(dataset_entry, FolderEntry) and not _is_whole(spec.dataset.name, dataset_entry):
        return False  # said already; whether maps are missing is known when the data is there
    if not locate_dataset(spec.dataset.name, dataset_entry).is_dir():
        return True
    from ditr.data.dataset import open_dataset
    from ditr.features.extract import store_folder
    from ditr.features.sources import grid_of
    from ditr.features.store import FeatureStore

    dataset = open_dataset(spec.dataset.name, registry=registry)
    rows, columns = grid_of(entry, input_size=spec.features.input_size)
    folder = store_folder(spec=spec.features, entry=entry, dataset=dataset)
    return bool(
        FeatureStore(folder, shape=(entry.channels, rows, columns)).missing(dataset.train.ids + dataset.val.ids)
    )


def _is_whole(name: str, entry: FolderEntry) -> bool:
    root = locate_dataset(name, entry)
    return all((root / file).is_file() for file in entry.infos.values())
