"""``prepared.json``: how a folder was prepared, so that one folder never mixes two ways."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ditr.data.scannet_sv import POINTS
from ditr.errors import Code, DitrError
from ditr.geometry.camera import Intrinsics
from ditr.scannet.files import write_whole

PREPARED = "prepared.json"
_METHOD = 1
"""Raised when the same settings would give other bytes."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Everything besides the raw files that decides the bytes of a frame."""

    seed: int
    superpoints: Literal["masks", "oversegmentation"]
    masks: Path | None
    """Folder of ``<scene>/<frame>.png`` label images; given exactly where ``superpoints`` is "masks"."""
    intrinsics: Literal["average", "scene"]
    """The declared ``camera`` for every scan, as in ESAM, or each scan's own depth camera."""
    camera: Intrinsics


def claim_folder(out: Path, settings: PrepareSettings) -> None:
    """Writes the settings into a folder without prepared frames; elsewhere they must be those it was made with."""
    path = out / PREPARED
    if not path.is_file():
        if any((out / POINTS).glob("*.bin")):
            raise DitrError(
                f"there are prepared frames but no {PREPARED}: something else made them",
                code=Code.DATASET,
                where=str(out / POINTS),
                fix="name a new folder with --out; frames of two preparations must not be mixed",
            )
        _write(path, {"settings": _record(settings), "finished": False})
        return
    before, now = json.loads(path.read_text())["settings"], _record(settings)
    different = [f"{key} {before.get(key)!r}, now {now.get(key)!r}" for key in now if before.get(key) != now[key]]
    if different:
        raise DitrError(
            f"the folder was prepared with other settings: {'; '.join(different)}",
            code=Code.DATASET,
            where=str(path),
            fix="name a new folder with --out, or use the settings it was begun with",
        )


def write_manifest(
    out: Path, settings: PrepareSettings, *, frames: int, skipped: Mapping[str, str], failed: Mapping[str, str]
) -> None:
    """Writes what came of it: counts, and each frame that is not there with the reason."""
    content = {
        "settings": _record(settings),
        "finished": True,
        "frames": frames,
        "skipped": dict(skipped),
        "failed": dict(failed),
    }
    _write(out / PREPARED, content)


def _record(settings: PrepareSettings) -> dict[str, Any]:
    record = dataclasses.asdict(settings)
    return record | {"masks": None if settings.masks is None else str(settings.masks.resolve()), "method": _METHOD}


def _write(path: Path, content: dict[str, Any]) -> None:
    head = {"made_by": "ditr data prepare", "ditr": version("ditr")}
    write_whole(path, (json.dumps(head | content, indent=1) + "\n").encode())
