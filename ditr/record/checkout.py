"""The git checkout that ditr runs from: its commit, and what of its code differs from that."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ditr.record.secret_scan import secret_in

_CHECKOUT = Path(__file__).resolve().parents[2]
_CODE = ("ditr", "specs")
"""Folders whose new files may decide what a run does. Whatever else lies in a checkout is its owner's alone."""
_CODE_KINDS = (".py", ".json", ".yaml", ".yml", ".toml")
_LARGEST_COPY = 1_000_000
"""Bytes of a new file that is copied."""
_LARGEST_DIGEST = 64 * 2**20
"""Bytes of one whose digest is taken: data sets and weights would keep a run waiting."""
_MOST_NAMES = 1000
_WITHHELD = "# withheld, "
"""How a line begins about a file without which the patch does not give the code that ran."""
_DIFF = ("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
"""Whatever the user has set for looking at differences."""


def git_state() -> dict[str, Any] | None:
    """Commit, and whether anything is not committed; None outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit.strip(), "dirty": bool((_git("status", "--porcelain") or "").strip())}


def dirty_patch() -> str:
    """What ``git apply`` needs on top of the commit to get the code that ran; empty if nothing is changed.

    Of files that git does not know, those of ``ditr/`` and ``specs/`` that are code are in it; the others are named,
    with size and digest, in lines that git passes over. So is a file, known or new, that holds what is obviously a
    secret.
    """
    if _git("rev-parse", "HEAD") is None:
        return ""
    changed = _names("diff", "--name-only", "--no-renames", "HEAD")
    parts = [_of_changed(name) for name in changed]
    new = [name for name in _names("ls-files", "--others", "--exclude-standard") if _is_file(_CHECKOUT / name)]
    named = [name for name in new if not _is_code(name)]
    parts += [_of_code(name) for name in new if _is_code(name)]
    parts += [_line("# untracked, not copied", name) for name in named[:_MOST_NAMES]]
    if len(named) > _MOST_NAMES:
        parts.append(f"# and {len(named) - _MOST_NAMES} more untracked files\n")
    return "".join(parts)


def withheld(patch: str) -> tuple[str, ...]:
    """Why and which files are not in the patch that are part of the code that ran."""
    return tuple(line.removeprefix(_WITHHELD) for line in patch.splitlines() if line.startswith(_WITHHELD))


def _of_changed(name: str) -> str:
    patch = _git(*_DIFF, "--no-renames", "HEAD", "--", name) or ""
    secret = secret_in(patch)
    return patch if secret is None else _line(f"{_WITHHELD}{secret}", name)


def _of_code(name: str) -> str:
    path = _CHECKOUT / name
    if path.stat().st_size > _LARGEST_COPY:
        return _line(f"{_WITHHELD}too large for this patch", name)
    if secret := secret_in(path.read_text(encoding="utf-8", errors="replace")):
        return _line(f"{_WITHHELD}{secret}", name)
    return _git(*_DIFF, "--no-index", "--", os.devnull, name, differs=True) or ""


def _is_code(name: str) -> bool:
    path = Path(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return path.parts[0] in _CODE and path.suffix in _CODE_KINDS and not hidden


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _line(why: str, name: str) -> str:
    """What the patch says of a file in place of its content."""
    path, shown = _CHECKOUT / name, name if name.isprintable() else ascii(name)
    if not _is_file(path):
        return f"{why}: {shown}\n"
    size = path.stat().st_size
    if size > _LARGEST_DIGEST or not os.access(path, os.R_OK):
        return f"{why}: {shown}, {size} bytes\n"
    return f"{why}: {shown}, {size} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _names(*arguments: str) -> Iterator[str]:
    command, *options = arguments
    return (name for name in (_git(command, "-z", *options) or "").split("\0") if name)


def _git(*arguments: str, differs: bool = False) -> str | None:
    """What git prints about the checkout ditr runs from, or None where git cannot tell.

    ``differs``: exit code 1 means a difference was found, as for ``git diff --no-index``.
    """
    command = ["git", "-C", str(_CHECKOUT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    fine = done.returncode == 0 or (differs and done.returncode == 1)
    return done.stdout.decode("utf-8", errors="replace") if fine else None
