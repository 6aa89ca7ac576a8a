"""A scene of a capture: its frames in the order in which they were taken, and the camera that all are brought to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ditr.captures.prepared_frame import Labels
from ditr.captures.raw_frame import RawFrame
from ditr.geometry.camera import Intrinsics


class LabelFiles(Protocol):
    """Where a scene's labels lie; read once a scene, in the process that needs them, so that it must be picklable."""

    def read(self) -> Labels:
        """Raises DitrError where they are missing or broken: then every frame of the scene fails."""

    def files(self) -> tuple[Path, ...]:
        """What is read."""


@dataclass(frozen=True, kw_only=True)
class RawScene:
    """What a reader of a format gives."""

    name: str
    """What frame ids begin with."""
    frames: tuple[RawFrame, ...]
    camera: Intrinsics
    """Of the images that are kept: one for all frames, whatever the capture's own are."""
    labels: LabelFiles | None = None

    def frame_id(self, frame: RawFrame) -> str:
        return f"{self.name}_{frame.number}"


def safe_name(text: str) -> str:
    """The text as a scene's name: what may not stand in one becomes a ``-``.

    Raises
    ------
    ValueError: nothing is left of it.
    """
    name = re.sub(r"[^\w.-]+", "-", text).strip(".-")
    if not name:
        raise ValueError(f"{text!r} has no letter or digit")
    return name
