"""Commands that serve a page until they are told to end."""

from __future__ import annotations

import signal
from types import FrameType


def end_when_told() -> None:
    """From now on Ctrl-C and SIGTERM raise KeyboardInterrupt, also in a background shell, whose jobs ignore Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
