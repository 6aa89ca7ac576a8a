"""Files that a run reads and its identity only names: whoever skips or continues a run must find the same ones."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from ditr.catalog import locate_checkpoint, locate_dataset, locate_maps, weights_stamp
from ditr.errors import Code, DitrError
from ditr.record.folder import Record
from ditr.spec.entries import FolderEntry, GivenEntry
from ditr.spec.feature_maps import weights_of
from ditr.spec.identity import without_prose
from ditr.spec.models import HubWeights, RegisteredCheckpoint, SeededWeights, Spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.data.dataset import Dataset

_READ = {
    "data set": ("dataset", "digest"),
    "checkpoint": ("start_weights", "sha256"),
    "2D source's weights": ("features", "weights_digest"),
    "precomputed 2D maps": ("features", "maps_digest"),
}
"""What decides a run's numbers, and where its provenance says which it was."""


class Present:
    """What lies on this machine now, each file read once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._opened = cache(self._open)
        self._stamp = cache(weights_stamp)
        self._maps_digest = cache(self._digest_of_maps)

    def require_same(self, spec: Spec, folder: Record) -> None:
        """For a finished run that is to be skipped. What its identity pins is left out, and what is not here any more.

        Raises
        ------
        DitrError: the run read another file than lies here now.
        """
        before = folder.read_provenance()
        if before is None:
            return
        read = {
            "checkpoint": (_noted(before, "start_weights", "sha256"), self._checkpoint(spec)),
            "2D source's weights": (_noted(before, "features", "weights_stamp"), self._weights(spec)),
            "precomputed 2D maps": (_noted(before, "features", "maps_digest"), self._maps(spec, before)),
            "data set": (_noted(before, "dataset", "digest"), self._dataset(spec)),
        }
        _refuse(folder, [what for what, (then, now) in read.items() if None not in (then, now) and then != now])

    def _checkpoint(self, spec: Spec) -> str | None:
        checkpoint = spec.checkpoint
        if checkpoint is None:
            return None
        if isinstance(checkpoint, RegisteredCheckpoint) and self._registry.checkpoint(checkpoint.name).sha256:
            return None  # pinned
        try:
            return locate_checkpoint(checkpoint, registry=self._registry).sha256
        except DitrError:
            return None  # not here, and a finished run does not need it

    def _weights(self, spec: Spec) -> str | None:
        features = spec.read_features
        if features is None:
            return None
        entry = self._registry.features(features.source)
        if isinstance(entry, GivenEntry):
            return None  # maps are no weights
        weights = weights_of(features, entry)
        if isinstance(weights, SeededWeights | HubWeights) or weights.sha256 is not None:
            return None  # the identity says which, or nothing here does
        return self._stamp(weights)

    def _maps(self, spec: Spec, before: dict[str, Any]) -> str | None:
        features = spec.read_features
        if features is None:
            return None
        excluded = frozenset((before.get("dataset") or {}).get("excluded_frames", ()))
        return self._maps_digest(features.source, spec.dataset.name, excluded)

    def _digest_of_maps(self, source: str, dataset_name: str, excluded: frozenset[str]) -> str | None:
        """Of the maps that a run read; None if a frame has none here, for a finished run needs none."""
        from ditr.features.precomputed_maps import PrecomputedMaps

        entry = self._registry.features(source)
        if not isinstance(entry, GivenEntry) or (dataset := self._opened(dataset_name)) is None:
            return None
        ids = [frame for frame in dataset.ids if frame not in excluded]
        maps = PrecomputedMaps(locate_maps(entry, dataset_root=dataset.root), entry=entry, frame_ids=ids)
        return None if maps.missing(ids) else maps.digest()

    def _dataset(self, spec: Spec) -> str | None:
        name = spec.dataset.name
        if not isinstance(self._registry.dataset(name), FolderEntry):
            return None  # made from what the identity holds
        dataset = self._opened(name)
        return None if dataset is None else dataset.digest

    def _open(self, name: str) -> Dataset | None:
        """None if it is not here."""
        from ditr.data.dataset import open_dataset
        from ditr.data.scannet_sv import MANIFEST

        entry = self._registry.dataset(name)
        files = entry.infos.values() if isinstance(entry, FolderEntry) else (MANIFEST,)
        root = locate_dataset(name, entry)
        return open_dataset(name, registry=self._registry) if all((root / file).is_file() for file in files) else None


def require_same_as_before(before: dict[str, Any], facts: dict[str, Any], *, folder: Record) -> None:
    """For a run that goes on: half of a training on one data set and half on another is a number of neither.

    Raises
    ------
    DitrError: what this session would read is not what the session before read.
    """
    _refuse(folder, [what for what, keys in _READ.items() if _noted(before, *keys) != _noted(facts, *keys)])


def other_features(before: dict[str, Any] | None, now: dict[str, Any] | None) -> list[str]:
    """A sentence if 2D features that a trained model is given are not made as those of its training were.

    Parameters
    ----------
    before, now: what they are made of, as a provenance has it; None without any.
    """
    if before is None or now is None:
        return []
    here = _entry_of(now)
    pairs = {
        "class's code": [(before.get("code_digest"), now.get("code_digest"))],
        "2D source's weights": [(before.get("weights_digest"), now.get("weights_digest"))],
        "entry in the registry": [(value, here.get(key)) for key, value in _entry_of(before).items()],
    }
    changed = [what for what, facts in pairs.items() if any(then not in (None, since) for then, since in facts)]
    return [f"not the 2D features of the run: other than then is the {' and the '.join(changed)}"] if changed else []


def _entry_of(facts: dict[str, Any]) -> dict[str, Any]:
    """Without prose; of older versions it has fewer fields."""
    return cast(dict[str, Any], without_prose(facts.get("entry") or {}))


def _noted(facts: dict[str, Any], part: str, key: str) -> str | None:
    return (facts.get(part) or {}).get(key)


def _refuse(folder: Record, changed: list[str]) -> None:
    if changed:
        raise DitrError(
            f"changed since this run read it: the {' and the '.join(changed)}",
            code=Code.RUN,
            where=str(folder.path),
            fix="Restore it (provenance.json says what it was), or run again from the start with --force.",
        )
