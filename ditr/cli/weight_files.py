"""Weight files as commands take them: a path, or the name of a checkpoint of the registry."""

from __future__ import annotations

from pathlib import Path

from ditr.catalog import locate_checkpoint
from ditr.spec.models import RegisteredCheckpoint
from ditr.spec.registry import Registry


def find_weights(word: str) -> Path:
    """``word`` itself where there is such a file or folder, else the file of the registry's checkpoint of that name.

    A path that does not exist stays as it is: reading it says what is wrong.

    Raises
    ------
    DitrError: the checkpoint's file is not here, or not the one that its entry pins.
    """
    path, registry = Path(word), Registry()
    if path.exists() or word not in registry.names("checkpoints"):
        return path
    return locate_checkpoint(RegisteredCheckpoint(kind="registry", name=word), registry=registry).path
