"""The registry: named, pinned things, read from registry/ and checked like specs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from ditr import paths
from ditr.errors import Code, DitrError
from ditr.spec.entries import CheckpointEntry, DatasetEntry, FeatureEntry, FolderEntry, SynthRoomsEntry
from ditr.spec.explain import check
from ditr.spec.problems import SpecErrors, allowed, shown_path
from ditr.spec.yaml_text import read_yaml

Kind = Literal["datasets", "features", "checkpoints"]


class Registry:
    """The entries of one registry folder, each parsed once.

    A broken entry raises ``SpecErrors`` with every mistake as file:line:col, an unknown name a ``DitrError``;
    both have the code ``registry``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = paths.registry_dir() if folder is None else folder
        self._entries: dict[tuple[Kind, str], Any] = {}

    def dataset(self, name: str) -> SynthRoomsEntry | FolderEntry:
        return cast(SynthRoomsEntry | FolderEntry, self._entry("datasets", name, DatasetEntry))

    def features(self, name: str) -> FeatureEntry:
        return cast(FeatureEntry, self._entry("features", name, FeatureEntry))

    def checkpoint(self, name: str) -> CheckpointEntry:
        return cast(CheckpointEntry, self._entry("checkpoints", name, CheckpointEntry))

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The names of all entries, sorted; nothing is parsed."""
        return tuple(sorted(file.stem for file in (self.folder / kind).glob("*.yaml")))

    def unknown(self, kind: Kind, name: str) -> str:
        """What to say about a name that is not in the registry; empty if it is."""
        names = self.names(kind)
        if name in names:
            return ""
        return f"'{name}' is not in {shown_path(self.folder / kind)}{allowed(name, names, label='there')}"

    def _entry(self, kind: Kind, name: str, annotation: Any) -> Any:
        if (kind, name) not in self._entries:
            self._entries[kind, name] = self._read(kind, name, annotation)
        return self._entries[kind, name]

    def _read(self, kind: Kind, name: str, annotation: Any) -> Any:
        if what := self.unknown(kind, name):
            raise DitrError(what, code=Code.REGISTRY, fix="Use one of these names, or add an entry.")
        source = read_yaml(self.folder / kind / f"{name}.yaml")
        if source.value is None:
            raise SpecErrors(source.problems, code=Code.REGISTRY)
        entry, problems = check(source.value, annotation)
        if problems or source.problems:
            raise SpecErrors([*source.problems, *problems], code=Code.REGISTRY)
        return entry
