"""Where a command is told to write one file."""

from __future__ import annotations

import os
from pathlib import Path

from ditr.errors import Code, DitrError


def out_file(path: Path, *, code: Code, such_as: str) -> Path:
    """The file to write: a link stays, and what it leads to is written.

    A file gets its name when it is whole, so that a pipe or a device would be replaced by it: /dev/null is none to
    write to.

    Parameters
    ----------
    such_as: a name for it, where only a folder is given.

    Raises
    ------
    DitrError: its folder is not there; it is a folder, a pipe or a device.
    """
    if not path.parent.is_dir():
        fix = "Make it, or name a file in another folder."
        raise DitrError("no such folder to write to", code=code, where=str(path.parent), fix=fix)
    if path.is_dir():
        raise DitrError("is a folder", code=code, where=str(path), fix=f"Name a file, such as {path}/{such_as}")
    if path.exists() and not path.is_file():
        fix = "Name a file, or one that is not there yet."
        raise DitrError("is a pipe or a device, not a file", code=code, where=str(path), fix=fix)
    return Path(os.path.realpath(path))
