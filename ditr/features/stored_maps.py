"""All feature stores of the cache, found without knowing the specs they were made for."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ditr import paths
from ditr.errors import Code, DitrError
from ditr.features.store import LOCK, read_manifest


@dataclass(frozen=True, kw_only=True)
class StoredMaps:
    """One folder of maps."""

    name: str
    """Its path below the cache's folder of features."""
    folder: Path
    manifest: dict[str, Any] | None
    """None where the first extraction was ended before it knew its weights."""
    maps: int
    bytes: int

    @property
    def frames(self) -> int | None:
        """How many frames its data set has, if its manifest says so."""
        return None if self.manifest is None else self.manifest.get("frames")

    @property
    def complete(self) -> bool:
        return self.frames is not None and self.maps >= self.frames


def stores() -> tuple[StoredMaps, ...]:
    """Those of the cache, by name."""
    root = _root()
    folders = sorted(folder for folder in root.glob("*/*") if folder.is_dir())
    return tuple(_described(folder, name=str(folder.relative_to(root))) for folder in folders)


def delete(store: StoredMaps) -> None:
    """Removes the folder and all in it; DitrError if a process is making maps there."""
    lock = FileLock(store.folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DitrError(
            "a process is making maps here",
            code=Code.FEATURES,
            where=str(store.folder),
            fix="end it, or wait until it is done",
        ) from None
    try:
        (store.folder / "manifest.json").unlink(missing_ok=True)  # first: what is left of a kill is no store
        shutil.rmtree(store.folder)
    finally:
        lock.release()
    if not any(store.folder.parent.iterdir()):
        store.folder.parent.rmdir()


def _root() -> Path:
    return paths.cache_dir() / "features"


def _described(folder: Path, *, name: str) -> StoredMaps:
    files = [entry for entry in os.scandir(folder) if entry.name.endswith(".npy")]
    size = sum(entry.stat().st_size for entry in files)
    return StoredMaps(name=name, folder=folder, manifest=read_manifest(folder), maps=len(files), bytes=size)
