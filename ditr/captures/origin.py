"""What a frame was made of, as short stamps: one that is there already is kept while they are the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xxhash

from ditr.captures.files import ORIGINS
from ditr.captures.raw_frame import RawFrame
from ditr.captures.scene import RawScene

_NEWER_READER = "how frames are made"
_METHOD = 1
"""Raised when the same files and numbers would give another frame."""


def origin_of(scene: RawScene, frame: RawFrame) -> dict[str, str]:
    """Everything of the capture that decides the frame, name -> stamp: its files, cameras, conventions and poses.

    Of a file its size and time, as make has it, so that a look at a capture of thousands of frames takes no minutes.
    """
    parts = {field.name.replace("_", " "): getattr(frame, field.name) for field in dataclasses.fields(frame)}
    parts["camera that is kept"] = scene.camera
    labels = scene.labels
    parts["labels"] = None if labels is None else (labels, labels.files())
    return {name: xxhash.xxh3_64_hexdigest(_text(value).encode()) for name, value in parts.items()} | {
        _NEWER_READER: str(_METHOD)
    }


def origin_file(root: Path, scene: str, number: str) -> Path:
    """Where it stands of a frame that is whole."""
    return root / ORIGINS / scene / f"{number}.json"


def read_origin(root: Path, scene: str, number: str) -> Mapping[str, str]:
    """Empty where nothing says what the frame was made of."""
    try:
        found = json.loads(origin_file(root, scene, number).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def different(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What is not the same, in words."""
    names = [name for name in now if before.get(name) != now[name]]
    return f"{', '.join(names)} changed" if before else "nothing says what it was made of"


def _text(value: object) -> str:
    if isinstance(value, Path):
        return _stamp(value)
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype} {xxhash.xxh3_64_hexdigest(value.tobytes())}"
    if dataclasses.is_dataclass(value):
        return " ".join(_text(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return repr(value)


def _stamp(path: Path) -> str:
    """Of a folder nothing, since what is made may lie in it."""
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return "folder" if path.is_dir() else f"{status.st_size} {status.st_mtime_ns}"
