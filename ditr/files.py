"""Files that are whole or not there: written under a name beside their own, brought to the disk, then renamed."""

from __future__ import annotations

import codecs
import fcntl
import glob
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ditr.machine_errors import size_of, unwritten

_UNFINISHED = re.compile(r"\..+\.(\d+)(\.tmp|\.npz|\.part)?(-journal|-wal|-shm|\.wal)?")
"""Names beside which something was being written; the number is the process. Earlier versions ended them otherwise; at
the end stands what SQLite and DuckDB write beside a file."""


@contextmanager
def replacing(path: Path, *, durable: bool = True, alone: bool = False, needs: int = 0) -> Iterator[Path]:
    """Gives a name beside ``path`` to write to; when the block ends, what was written takes the place of ``path``.

    Whatever happens, even a power cut, there is the old file or the new one. If the block raises, the old one stays.
    What a killed process left of the same file goes.

    Parameters
    ----------
    durable: wait until the disk has it. Only for what can be made again, and is by the thousand, this is not worth it;
        what is left of such files is for who knows their folder.
    alone: the caller holds a lock, so that no other process writes this file; a database, which locks files in its own
        way, has to be written so.
    needs: bytes that the file takes at least, where that is known before it is written; told where there is no room.

    Raises
    ------
    MachineError: the disk is full, the folder is gone, or something else of the machine keeps it from being written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if durable:
            _sweep(path, alone=alone)
        with claiming(beside) if durable and not alone else nullcontext():
            yield beside
            if durable:
                _sync(beside)
            beside.replace(path)
        if durable:
            _sync(path.parent)
    except Exception as error:
        if (mistake := unwritten(error, path=path, part=beside, needs=needs)) is not None:
            raise mistake from error
        raise
    finally:
        with suppress(NotADirectoryError):
            beside.unlink(missing_ok=True)


def append(path: Path, text: str) -> None:
    """Appends to the file, in UTF-8, all of it or nothing but for a power cut; raises as ``replacing`` does."""
    content, before = memoryview(text.encode()), size_of(path)
    try:
        with path.open("ab", buffering=0) as file:
            left = content
            while left:
                left = left[file.write(left) :]
    except OSError as error:
        if size_of(path) > before:
            os.truncate(path, before)
        if (mistake := unwritten(error, path=path, needs=len(content))) is not None:
            raise mistake from error
        raise


def read_text(path: Path) -> str:
    """A text as other systems write it, see ``decode_text``."""
    return decode_text(path.read_bytes())


def decode_text(raw: bytes) -> str:
    """UTF-8 or UTF-16; a mark of the order of bytes is no part of it.

    Bytes that are no text come as U+FFFD, so that who looks for words or numbers there can say which are none.
    """
    utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if utf_16 else "utf-8-sig", errors="replace")


def read_json(path: Path) -> Any:
    """What a file of JSON holds; OSError if it cannot be read, see ``parse_json``."""
    return parse_json(path.read_bytes())


def parse_json(raw: bytes) -> Any:
    """What the bytes mean.

    Raises
    ------
    ValueError: it is no JSON, or nested without end.
    """
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError("it is nested without end") from error


def write_text(path: Path, text: str) -> None:
    """Writes the file in UTF-8, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def claiming(path: Path) -> Iterator[None]:
    """Holds the file, which is made if there is none: while this process lives, nobody takes it for abandoned."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with suppress(OSError):  # on a file system without locks nothing is ever taken for abandoned
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_open_as(path, handle):
                yield
                return
        finally:  # or who looked just before the lock has removed it
            os.close(handle)


@contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Whether the process that claimed the file has died, on whatever machine; nobody can claim it meanwhile."""
    try:
        file = path.open("rb+")
    except OSError:  # it is gone
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:  # or it has got its name since, and its process writes another here
            yield _is_open_as(path, file.fileno())


def unfinished_in(folder: Path) -> dict[Path, int]:
    """Every file below the folder that a process was writing, and its number: once that is gone, they are nobody's."""
    found = ((path, _UNFINISHED.fullmatch(path.name)) for path in sorted(folder.rglob(".*")))
    return {path: int(match[1]) for path, match in found if match is not None and path.is_file()}


def _sweep(path: Path, *, alone: bool) -> None:
    """Removes what killed processes left beside ``path``, of it alone."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if _UNFINISHED.fullmatch(left.name):
            with abandoned(left) if not alone else nullcontext(True) as dead:
                if dead:
                    left.unlink(missing_ok=True)


def _is_open_as(path: Path, handle: int) -> bool:
    """Whether the open file is the one of this name now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
