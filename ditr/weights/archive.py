"""Torch's zip archives, of weights and of maps: whether they are whole, which torch itself never looks at."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO


def is_archive(path: Path) -> bool:
    """As torch tells, by the first bytes."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def require_checksums(archive: Path | IO[bytes]) -> None:
    """Every member of the archive matches its checksum.

    Raises
    ------
    BadZipFile, or whatever else damaged bytes make ``zipfile`` raise.
    """
    if not zipfile.is_zipfile(archive):
        raise zipfile.BadZipFile("it is no zip archive, as torch writes since 1.6, or cut short")
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            if member.compress_type != zipfile.ZIP_STORED:  # torch takes what is compressed for the numbers themselves
                raise zipfile.BadZipFile(f"{member.filename} was packed anew, with compression")
        damaged = members.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} does not match its checksum")
