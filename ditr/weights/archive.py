"""Torch's zip archives, of weights and of maps: whether they are whole, which torch itself never looks at."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO


def require_checksums(archive: Path | IO[bytes]) -> None:
    """Every member of the archive matches its checksum.

    Raises
    ------
    BadZipFile, or whatever else damaged bytes make ``zipfile`` raise.
    """
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            if member.compress_type != zipfile.ZIP_STORED:  # torch takes what is compressed for the numbers themselves
                raise zipfile.BadZipFile(f"{member.filename} was packed anew, with compression")
        damaged = members.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} does not match its checksum")
