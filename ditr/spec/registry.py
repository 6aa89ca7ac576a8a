"""The registry: named, pinned things, read from registry/ and checked like specs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from ditr import paths
from ditr.errors import Code, DitrError
from ditr.spec.entries import CheckpointEntry, DatasetEntry, FeatureEntry, FolderEntry, SynthRoomsEntry
from ditr.spec.explain import check
from ditr.spec.models import RegisteredCheckpoint, Spec
from ditr.spec.problems import SpecErrors, allowed, shown_path
from ditr.spec.yaml_text import read_yaml

Kind = Literal["datasets", "features", "checkpoints"]


def entries_of(spec: Spec) -> tuple[tuple[Kind, str], ...]:
    """Kind and name of each entry that a spec reads."""
    named: list[tuple[Kind, str]] = [("datasets", spec.dataset.name)]
    if spec.read_features is not None:
        named.append(("features", spec.read_features.source))
    if isinstance(spec.checkpoint, RegisteredCheckpoint):
        named.append(("checkpoints", spec.checkpoint.name))
    return tuple(named)


class Registry:
    """The entries of one or more folders, each parsed once; a name in an earlier folder hides that in a later one.

    Without folders: those of the project, then the built-in ones. A broken entry raises ``SpecErrors`` with every
    mistake as file:line:col, an unknown name a ``DitrError``; both have the code ``registry``.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders or paths.registry_dirs()
        self._entries: dict[tuple[Kind, str], Any] = {}

    def dataset(self, name: str) -> SynthRoomsEntry | FolderEntry:
        return cast(SynthRoomsEntry | FolderEntry, self._entry("datasets", name, DatasetEntry))

    def features(self, name: str) -> FeatureEntry:
        return cast(FeatureEntry, self._entry("features", name, FeatureEntry))

    def checkpoint(self, name: str) -> CheckpointEntry:
        return cast(CheckpointEntry, self._entry("checkpoints", name, CheckpointEntry))

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The names of all entries, sorted; nothing is parsed."""
        files = [file for folder in self.folders for file in (folder / kind).glob("*.yaml")]
        return tuple(sorted({file.stem for file in files if file.is_file()}))

    def file(self, kind: Kind, name: str) -> Path:
        """The file of an entry that there is."""
        return self._files(kind, name)[0]

    def hidden(self, kind: Kind, name: str) -> Path | None:
        """The built-in entry that the project's of this name stands in place of; None if there is none."""
        own, *others = self._files(kind, name)
        return next((other for other in others if not other.samefile(own)), None)

    def _files(self, kind: Kind, name: str) -> list[Path]:
        files = [folder / kind / f"{name}.yaml" for folder in self.folders]
        return [file for file in files if file.is_file()]

    def unknown(self, kind: Kind, name: str) -> str:
        """What to say about a name that is not in the registry; empty if it is."""
        names = self.names(kind)
        if name in names:
            return ""
        return f"'{name}' is not in {shown_path(self.folders[0] / kind)}{allowed(name, names, label='there')}"

    def _entry(self, kind: Kind, name: str, annotation: Any) -> Any:
        if (kind, name) not in self._entries:
            self._entries[kind, name] = self._read(kind, name, annotation)
        return self._entries[kind, name]

    def _read(self, kind: Kind, name: str, annotation: Any) -> Any:
        if what := self.unknown(kind, name):
            raise DitrError(what, code=Code.REGISTRY, fix="Use one of these names, or add an entry.")
        source = read_yaml(self.file(kind, name))
        if source.value is None:
            raise SpecErrors(source.problems, code=Code.REGISTRY)
        entry, problems = check(source.value, annotation)
        if problems or source.problems:
            raise SpecErrors([*source.problems, *problems], code=Code.REGISTRY)
        return entry
