"""Digests of a folder's files, one line a file, in the format of ``xxh128sum``: a kill costs at most the last line."""

from __future__ import annotations

import os
import re
from pathlib import Path

_LINE = re.compile(r"(?P<digest>[0-9a-f]{32})  (?P<name>.+)")


class Journal:
    """The file ``path``, appended to and never rewritten; ``xxh128sum -c`` in its folder checks every file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, str]:
        """File name -> digest; of several lines of a file the last counts, a torn one not at all."""
        try:
            text = self.path.read_text(errors="replace")
        except FileNotFoundError:
            return {}
        lines = text.split("\n")[:-1]  # what follows the last line's end is torn, or empty
        return {found["name"]: found["digest"] for line in lines if (found := _LINE.fullmatch(line))}

    def append(self, name: str, digest: str) -> None:
        """In one write, so that lines of several threads never mix."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{digest}  {name}\n".encode())
        finally:
            os.close(file)

    def mend(self) -> None:
        """Cuts off a torn last line; for whoever alone appends."""
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
