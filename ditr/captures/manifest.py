"""``prepared.json``: how a folder was prepared, so that one folder never mixes two ways."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ditr.captures.files import write_whole
from ditr.data.prepared import PREPARED, read_prepared
from ditr.data.scannet_sv import POINTS
from ditr.errors import Code, DitrError

_METHOD = 1
"""Raised when the same settings would give other bytes."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything besides the capture's files that decides the bytes of a frame."""

    seed: int
    superpoints: Literal["masks", "oversegmentation"]
    others: Mapping[str, Any]
    """What else the format was told, as JSON can hold it."""

    def record(self) -> dict[str, Any]:
        """As it is written."""
        return {"seed": self.seed, "superpoints": self.superpoints, **self.others, "method": _METHOD}


def claim_folder(out: Path, settings: Settings) -> None:
    """Writes the settings into a folder without prepared frames; elsewhere they must be those it was made with."""
    path = out / PREPARED
    if not path.is_file():
        if any((out / POINTS).glob("*.bin")):
            raise DitrError(
                f"there are prepared frames but no {PREPARED}: something else made them",
                code=Code.DATASET,
                where=str(out / POINTS),
                fix="import into another folder; frames of two preparations must not be mixed",
            )
        _write(path, {"settings": settings.record(), "finished": False})
        return
    before, now = read_prepared(path)["settings"], settings.record()
    different = [f"{key} {before.get(key)!r}, now {now.get(key)!r}" for key in now if before.get(key) != now[key]]
    if different:
        raise DitrError(
            f"the folder was prepared with other settings: {'; '.join(different)}",
            code=Code.DATASET,
            where=str(path),
            fix="import into another folder, or use the settings it was begun with",
        )


def is_of_capture(out: Path) -> bool:
    """Whether a prepared folder was made of a capture, with its images; else of ScanNet, whose images lie anywhere."""
    return "format" in read_prepared(out / PREPARED)["settings"]


def frames_of_scenes(out: Path) -> dict[str, int]:
    """How many frames the import of a folder left of each scene; empty of one that no import finished."""
    path = out / PREPARED
    return dict(read_prepared(path).get("scenes", {})) if path.is_file() else {}


def write_manifest(
    out: Path, settings: Settings, *, frames: Sequence[str], skipped: Mapping[str, str], failed: Mapping[str, str]
) -> None:
    """Writes what came of it: counts, and each frame that is not there with the reason.

    ``frames``: ids of those that are."""
    content = {
        "settings": settings.record(),
        "finished": True,
        "frames": len(frames),
        "scenes": Counter(frame.rpartition("_")[0] for frame in frames),
        "skipped": dict(skipped),
        "failed": dict(failed),
    }
    _write(out / PREPARED, content)


def _write(path: Path, content: dict[str, Any]) -> None:
    head = {"made_by": "ditr data import", "ditr": version("ditr")}
    write_whole(path, (json.dumps(head | content, indent=1) + "\n").encode())
