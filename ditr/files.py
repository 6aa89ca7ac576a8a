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

_UNFINISHED = re.compile(r"\..+\.(\d+)(\.tmp|\.npz|\.part)?(-journal|-wal|-shm|\.wal)?")
"""Names beside which something was being written; the number is the process. Earlier versions ended them otherwise; at
the end stands what SQLite and DuckDB write beside a file."""


@contextmanager
def replacing(path: Path, *, durable: bool = True, alone: bool = False) -> Iterator[Path]:
    """Gives a name beside ``path`` to write to; when the block ends, what was written takes the place of ``path``.

    Whatever happens, even a power cut, there is the old file or the new one. If the block raises, the old one stays.
    What a killed process left of the same file goes.

    Parameters
    ----------
    durable: wait until the disk has it. Only for what can be made again, and is by the thousand, this is not worth it;
        what is left of such files is for who knows their folder.
    alone: the caller holds a lock, so that no other process writes this file; a database, which locks files in its own
        way, has to be written so.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    if durable:
        _sweep(path, alone=alone)
    try:
        with claiming(beside) if durable and not alone else nullcontext():
            yield beside
        if durable:
            _sync(beside)
        beside.replace(path)
        if durable:
            _sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


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
    """Holds the file, which is made if there is none: while this process lives, ``is_abandoned`` is false of it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):  # on a file system without locks nothing is ever taken for abandoned
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def is_abandoned(path: Path) -> bool:
    """Whether the process that claimed the file has died, on whatever machine; of one that is gone it is false."""
    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def unfinished_in(folder: Path) -> dict[Path, int]:
    """Every file below the folder that a process was writing, and its number: once that is gone, they are nobody's."""
    found = ((path, _UNFINISHED.fullmatch(path.name)) for path in sorted(folder.rglob(".*")))
    return {path: int(match[1]) for path, match in found if match is not None and path.is_file()}


def _sweep(path: Path, *, alone: bool) -> None:
    """Removes what killed processes left beside ``path``, of it alone."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if _UNFINISHED.fullmatch(left.name) and (alone or is_abandoned(left)):
            left.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
