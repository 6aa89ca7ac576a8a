"""From the names in a spec to files on this machine, with digests checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ditr import paths
from ditr.errors import Code, DitrError
from ditr.spec.entries import (
    SYNTHROOMS_VERSION,
    FolderEntry,
    GivenEntry,
    PretrainedWeights,
    SynthRoomsEntry,
)
from ditr.spec.identity import canonical_json
from ditr.spec.models import Checkpoint, FileWeights, HubWeights, RegisteredCheckpoint, SeededWeights
from ditr.spec.registry import Registry


@dataclass(frozen=True)
class CheckpointFile:
    """A weight file that exists; ``sha256`` is of its bytes as they are, equal to the pinned digest if there is one."""

    path: Path
    sha256: str
    format: str
    key_prefix: str = ""
    """What the file puts before the model's names."""
    entries: int | None = None
    """How many entries of the 3D-only model it must set, if a registry entry says so."""
    pinned: bool = False
    """Whether a digest was asked for, and this is it."""


def locate_dataset(name: str, entry: SynthRoomsEntry | FolderEntry) -> Path:
    """Where the data set is, or will be made; nothing is checked on disk.

    The folder of an embedded set names everything that decides its content, so an edited entry is another folder.
    """
    if isinstance(entry, FolderEntry):
        return paths.data_dir() / entry.path  # an absolute path stays as it is
    content = {"generator": SYNTHROOMS_VERSION, "entry": entry.model_dump(mode="json", exclude={"description"})}
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    return paths.cache_dir() / "datasets" / f"{name}-{digest[:12]}"


def locate_checkpoint(checkpoint: Checkpoint, *, registry: Registry) -> CheckpointFile:
    """The weight file; ``DitrError`` if it is missing or is not the one that was pinned."""
    if not isinstance(checkpoint, RegisteredCheckpoint):
        own = paths.project_dir() / checkpoint.path
        if not own.is_file():
            fix = "Correct checkpoint.path in the spec."
            raise DitrError("no such weight file", code=Code.CHECKPOINT, where=str(own), fix=fix)
        found = sha256_of(own)
        _require_pinned(own, found=found, pinned=checkpoint.sha256, by="the spec", url="")
        return CheckpointFile(
            own, found, checkpoint.format, key_prefix=checkpoint.key_prefix, pinned=checkpoint.sha256 is not None
        )
    entry = registry.checkpoint(checkpoint.name)
    folders = (registry.file("checkpoints", checkpoint.name).parent, paths.weights_dir())
    path = next((folder / entry.file for folder in folders if (folder / entry.file).is_file()), None)
    if path is None:
        raise DitrError(
            f"the weights of checkpoint '{checkpoint.name}' are missing; looked for {entry.file} in "
            f"{folders[0]} and {folders[1]} (DITR_WEIGHTS)",
            code=Code.CHECKPOINT,
            where=entry.file,
            fix=f"Download {entry.url} to {folders[1]}." if entry.url else f"Put the file into {folders[1]}.",
        )
    found = sha256_of(path)
    _require_pinned(path, found=found, pinned=entry.sha256, by=f"checkpoint '{checkpoint.name}'", url=entry.url)
    return CheckpointFile(
        path,
        found,
        entry.format,
        key_prefix=entry.key_prefix,
        entries=entry.entries,
        pinned=entry.sha256 is not None,
    )


def pinning_entries(sha256: str, *, registry: Registry) -> tuple[str, ...]:
    """Names of the registry's checkpoints that pin this digest."""
    return tuple(name for name in registry.names("checkpoints") if registry.checkpoint(name).sha256 == sha256)


def _require_pinned(path: Path, *, found: str, pinned: str | None, by: str, url: str) -> None:
    if pinned not in (None, found):
        raise DitrError(
            f"this is not the file that {by} pins: sha256 {found}, pinned {pinned}",
            code=Code.CHECKPOINT,
            where=str(path),
            fix=f"Download {url} again." if url else "Restore the file.",
        )


def locate_weights(weights: PretrainedWeights | HubWeights | FileWeights) -> Path | None:
    """The file of these weights: the user's, or one beside the registry's entry; None if there is none.

    Raises
    ------
    DitrError: it is not the file that was pinned.
    """
    if isinstance(weights, HubWeights):
        return None  # timm's own download is asked for, whatever lies here
    if isinstance(weights, FileWeights):
        places = [paths.project_dir() / weights.path]
    else:
        beside = [folder / "features" for folder in paths.registry_dirs()]
        places = [folder / weights.file for folder in (*beside, paths.weights_dir())]
    path = next((place for place in places if place.is_file()), None)
    if path is not None and weights.sha256 is not None and (found := sha256_of(path)) != weights.sha256:
        url = weights.url if isinstance(weights, PretrainedWeights) else ""
        raise DitrError(
            f"this is not the file of 2D weights that was pinned: sha256 {found}, pinned {weights.sha256}",
            code=Code.FEATURES,
            where=str(path),
            fix=f"Download {url} again." if url else "Restore the file, or pin its digest.",
        )
    return path


def weights_stamp(weights: SeededWeights | PretrainedWeights | HubWeights | FileWeights) -> str | None:
    """What tells a 2D source's weights from others without loading them; None if no file of them is here.

    Seeded weights are drawn by torch as timm's constructor asks, so they can differ between versions of the two. What
    timm downloads is known once it is loaded (``FeatureSource.weights_stamp``).
    """
    if isinstance(weights, SeededWeights):
        return f"seed {weights.seed}, torch {version('torch')}, timm {version('timm')}"
    path = locate_weights(weights)
    return None if path is None else f"sha256 {sha256_of(path)}"


def locate_maps(entry: GivenEntry, *, dataset_root: Path) -> Path:
    """The folder of precomputed maps; nothing is checked on disk."""
    return dataset_root / entry.path  # an absolute path stays as it is


def sha256_of(path: Path) -> str:
    """64 hex digits of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
