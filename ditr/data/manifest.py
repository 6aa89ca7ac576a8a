"""What the maker of an embedded data set wrote about it: ``manifest.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ditr.data.scannet_sv import MANIFEST


class _Part(BaseModel):
    """Of strict types; it holds more than is read."""

    model_config = ConfigDict(strict=True, extra="ignore")


class MadeThing(_Part):
    """An instance."""

    name: str
    points: int


class MadeFrame(_Part):
    """What only the maker of a frame knows."""

    instances: dict[str, MadeThing]
    """By id on disk."""
    texture_ids: list[int]
    """Ids on disk of things of texture-only groups of which the frame shows at least two."""


class Manifest(_Part):
    """Of a whole data set."""

    generator: Literal["synthrooms"]
    digest: str
    """Of every file but the manifest."""
    frames: dict[str, MadeFrame]
    """By frame id."""


def read_manifest(root: Path) -> Manifest | None:
    """None where there is none, or what it said cannot be read any more."""
    try:
        return Manifest.model_validate_json((root / MANIFEST).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
