"""A kind of file that is read, and what comes of reading it damaged."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ditr.errors import DitrError
from tests.damage.mutations import mutations

LIMIT_S = 20
"""Longer than this no damaged file may be looked at."""
SHORT = 24
Files = tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A file, or a folder of files of which one is damaged."""

    write: Callable[[Path], Files]
    """Writes it into the folder and returns the files that may be damaged."""
    read: Callable[[Path, Files], Any]
    """What the reader makes of it; values that ``==`` compares."""
    guarded: bool = True
    """Whether there is a checksum or digest, so that damage cannot pass for content."""
    remade: bool = False
    """Whether it is made again of other files, so that damage is not even told."""
    few: int = SHORT
    """Damages that the suite tries: less where a reading takes long, and none where writing the file does."""


def of_file(write: Callable[[Path], Path], read: Callable[[Path], Any], *, guarded: bool = True) -> Kind:
    """The kind of a single file."""
    return Kind(write=lambda folder: (write(folder),), read=lambda _, files: read(files[0]), guarded=guarded)


def outcomes(kind: Kind, folder: Path, *, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """What was done to which file, and what came of it: refused, same, other, or the name of a bare exception."""
    files = kind.write(folder)
    whole = kind.read(folder, files)
    first = np.random.default_rng(seed).permutation(len(files))[: count % len(files)]
    for number, path in enumerate(files):
        raw = path.read_bytes()
        of_file = count // len(files) + (number in first)
        for what, damaged in mutations(raw, count=of_file, seed=seed + number):
            path.write_bytes(damaged)
            yield f"{path.name}: {what}", _outcome(kind, folder, files, whole)
        path.write_bytes(raw)


def unexpected(kind: Kind, came: str) -> bool:
    """Whether it is none of what may come of damage."""
    if kind.remade:
        return came != "same"
    return came not in ({"refused", "same"} if kind.guarded else {"refused", "same", "other"})


def _outcome(kind: Kind, folder: Path, files: Files, whole: object) -> str:
    try:
        with (
            _limited(),
            warnings.catch_warnings(action="ignore"),
        ):  # libraries warn of odd content before they refuse it
            return "same" if kind.read(folder, files) == whole else "other"
    except DitrError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]


@contextmanager
def _limited() -> Iterator[None]:
    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not read within {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
