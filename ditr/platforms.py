"""Where ditr runs. Imports the standard library only: tools/setup.py asks it before anything is there."""

from __future__ import annotations

import platform
import sys

_ELSEWHERE = {
    "win32": "on Windows use WSL 2 (`wsl --install`), or the Dockerfile",
    "darwin": "on macOS use the Dockerfile, or a Linux machine",
}


def unsupported() -> str | None:
    """One sentence for a machine that ditr does not run on; None on Linux.

    Other processors than x86-64 are not refused, for nothing says that they fail; nobody has tried them.
    """
    if sys.platform == "linux":
        return None
    return f"ditr runs on Linux (x86-64): {_ELSEWHERE.get(sys.platform, 'use a Linux machine')}"


def untried() -> str | None:
    """What nobody has tried of this machine; None on x86-64."""
    machine = platform.machine()
    return None if machine in ("x86_64", "AMD64") else f"nobody has tried ditr on {machine}; it is made on x86-64"
