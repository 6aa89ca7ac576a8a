"""``prepared.json``: what a preparation wrote of a folder that it made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ditr.errors import Code, DitrError
from ditr.files import read_json

PREPARED = "prepared.json"


def read_prepared(path: Path) -> dict[str, Any]:
    """What it holds, ``settings`` at least.

    Raises
    ------
    DitrError: it is damaged.
    """
    try:
        content = read_json(path)
        if isinstance(content, dict) and isinstance(content.get("settings"), dict):
            return content
        why = "it holds no settings"
    except ValueError as error:
        why = str(error)
    fix = "import into another folder, or remove it together with the frames"
    raise DitrError(f"is damaged ({why})", code=Code.DATASET, where=str(path), fix=fix)


def skipped_frames(root: Path) -> Mapping[str, str]:
    """Frame id -> why the preparation of the folder left it out; empty of a folder that was not prepared here.

    Raises
    ------
    DitrError: ``prepared.json`` is damaged.
    """
    path = root / PREPARED
    skipped = read_prepared(path).get("skipped") if path.is_file() else None
    return skipped if isinstance(skipped, dict) else {}
