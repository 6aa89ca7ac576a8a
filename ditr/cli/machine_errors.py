"""What the machine says no to, as a user's mistake: a file that cannot be opened is seldom a bug of ours."""

from __future__ import annotations

import errno

from ditr.errors import Code, DitrError

_FIXES = {
    errno.EACCES: "let it be read, or written, by you",
    errno.EPERM: "let it be read, or written, by you",
    errno.EROFS: "name a folder that can be written",
    errno.ENOSPC: "make room there, and give the command again",
    errno.EDQUOT: "make room in your share of the disk, and give the command again",
    errno.EFBIG: "make room in your share of the disk, and give the command again",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "name a folder; a part of this path is a file",
    errno.ELOOP: "mend the links, which lead in a circle",
    errno.EMFILE: "let a process open more files: ulimit -n 4096",
    errno.ENFILE: "close other programs; the machine has no file handles left",
}
"""What a user can do about each; other kinds, such as a file that is not there, are for the code to foresee."""
_SHOWN = 200
"""Characters of a path."""


def as_mistake(error: OSError) -> DitrError | None:
    """The error in our words; None if it is of a kind that should have been foreseen."""
    fix = _FIXES.get(error.errno or 0)
    if fix is None:
        return None
    where = "" if error.filename is None else str(error.filename)
    if len(where) > _SHOWN:
        where = f"{where[:_SHOWN]}... ({len(where):,} characters)"
    return DitrError((error.strerror or "").lower(), code=Code.ENVIRONMENT, where=where, fix=fix)
