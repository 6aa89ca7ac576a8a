"""The folder of a prediction: new, and whole or empty; what is under way lies in a folder of its own in it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ditr.errors import Code, DitrError
from ditr.record.removal import is_alive

_PART = re.compile(r"\.(\d+)\.part")
"""What a process is writing, or was when it was killed."""
RESULT = "result.json"


def require_new(folder: Path) -> None:
    """Before any work is done; DitrError if there is something in the folder, but for what an earlier call left that
    was killed."""
    if folder.exists() and (not folder.is_dir() or any(not _PART.fullmatch(path.name) for path in folder.iterdir())):
        fix = "Name a new folder."
        raise DitrError("there is something already", code=Code.ENVIRONMENT, where=str(folder), fix=fix)


def unwritable(folder: Path, error: OSError) -> DitrError:
    """What is said where the disk does not take it."""
    what = f"the predictions cannot be written: {error.strerror or error}"
    return DitrError(what, code=Code.ENVIRONMENT, where=str(folder), fix="Name a folder elsewhere.")


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Gives a folder to write to; when the block ends, what was written is in ``folder``, the result file last.

    Raises
    ------
    DitrError: it cannot be made, or something else has been put into it meanwhile.

    If the block raises, nothing of it stays, nor the folder if it was made here: the same call can be made again.
    """
    is_new = not folder.exists()
    part = folder / f".{os.getpid()}.part"
    try:
        for path in folder.glob(".*.part"):
            if (match := _PART.fullmatch(path.name)) is not None and not is_alive(match[1]):
                shutil.rmtree(path)
        part.mkdir(parents=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield part
        require_new(folder)
        for path in sorted(part.iterdir(), key=lambda path: path.name == RESULT):
            path.rename(folder / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it is not empty: all is well
                folder.rmdir()
