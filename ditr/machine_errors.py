"""What the machine says no to, as a user's mistake: a file that cannot be opened is seldom a bug of ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ditr.errors import Code, DitrError, shortened

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FIXES = {
    errno.EACCES: "let it be read, or written, by you",
    errno.EPERM: "let it be read, or written, by you",
    errno.EROFS: "name a folder that can be written",
    errno.ENOSPC: "make room there, and give the command again",
    errno.EDQUOT: "make room in your share of the disk, and give the command again",
    errno.EFBIG: "make room in your share of the disk, and give the command again",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EISDIR: "a file belongs there: move the folder away, or name another place",
    errno.ENOTDIR: "name a folder; a part of this path is a file",
    errno.ELOOP: "mend the links, which lead in a circle",
    errno.EMFILE: "let a process open more files: ulimit -n 4096",
    errno.ENFILE: "close other programs; the machine has no file handles left",
    errno.EIO: "look after the disk, which does not read or write it",
    errno.ESTALE: "give the command again; the file system was away",
}
"""What a user can do about each; other kinds, such as a file that is not there, are for the code to foresee."""
_SMALLEST_BYTES = 2**16
"""Less room than this is none, for who cannot say why it failed to write."""


class MachineError(DitrError, OSError):
    """A user's mistake, and still the error of the machine that it was, with its number."""

    def __init__(self, what: str, *, number: int, where: str = "", fix: str = "") -> None:
        super().__init__(what, code=Code.ENVIRONMENT, where=where, fix=fix)
        self.errno, self.strerror = number, what

    @property
    def is_full(self) -> bool:
        """Whether there was no room on the disk."""
        return self.errno in _FULL

    def __reduce__(self) -> tuple[Callable[..., DitrError], tuple[str]]:
        return partial(MachineError, number=self.errno or 0, where=self.where, fix=self.fix), (self.what,)


def as_mistake(error: BaseException) -> MachineError | None:
    """The error in our words; None if it is of a kind that should have been foreseen."""
    if isinstance(error, MachineError) or not isinstance(error, OSError):
        return error if isinstance(error, MachineError) else None
    number = error.errno or 0
    if number not in _FIXES:
        return None
    where = "" if error.filename is None else str(error.filename)
    return MachineError((error.strerror or "").lower(), number=number, where=shortened(where), fix=_FIXES[number])


def unwritten(error: Exception, *, path: Path, part: Path | None = None, needs: int = 0) -> MachineError | None:
    """Why ``path`` could not be written, in our words; None if it is not the machine's doing, or was said already.

    Parameters
    ----------
    part: what there is of it, under another name, until it is whole.
    needs: bytes that it has at least, where that is more than those of the part and of the ``path`` of before.
    """
    number = _number(error, (path, part))
    if isinstance(error, DitrError) or number is None:
        return None
    what, fix = os.strerror(number).lower(), _FIXES.get(number, "")
    if number in _FULL:
        written = size_of(part) if part else 0
        most, free = max(needs, written, size_of(path) if part else 0), written + free_bytes(path.parent)
        least = "at least" if needs == most else "more than"
        needed = f"it needs {least} {most:,} bytes, and {free:,}" if most else f"{free:,} bytes"
        what = f"there is no room: {needed} are free"
    elif number == errno.ENOENT:
        what = "somebody removed it, or its folder, while it was written"
        fix = "give the command again, when nobody removes what is in use"
    return MachineError(what, number=number, where=shortened(str(path)), fix=fix)


def size_of(path: Path) -> int:
    """In bytes; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _number(error: Exception, paths: tuple[Path, Path | None]) -> int | None:
    """What kept a file from being written; compiled writers raise errors of their own, without one."""
    folder = paths[0].parent
    if not folder.is_dir() or (isinstance(error, FileNotFoundError) and error.filename in map(str, paths)):
        return errno.ENOENT
    if isinstance(error, OSError) and error.errno in _FIXES:
        return error.errno
    full = (one.errno for one in causes(error) if isinstance(one, OSError) and one.errno in _FULL)
    return next(full, errno.ENOSPC if free_bytes(folder) < _SMALLEST_BYTES else None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it came of."""
    found: BaseException | None = error
    for _ in range(8):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def free_bytes(folder: Path) -> int:
    """On the disk of a folder, for this user."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
