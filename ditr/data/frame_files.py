"""The files of a frame: read as bytes, held against what a check read of them, and decoded."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from PIL import Image

from ditr.errors import Code, DitrError

MAX_POINTS = 1_000_000
"""Of a frame; more fill the memory before anything can be said of them."""
MAX_PIXELS = 50_000_000
"""Of an image, such as 8,192 by 6,144; a small file may stand for any number of them."""
_MAX_IMAGE_BYTES = 2**28


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """A file as a check found it."""

    size_bytes: int
    mtime_ns: int
    digest: str
    """xxh3-128 of all its bytes."""


Contents = Mapping[str, Mapping[str, FileFacts]]
"""Of frames by id: the files that a run reads, by kind."""


def file_facts(path: Path) -> FileFacts | None:
    """None of a file that is not there, or so large that none reads it."""
    try:
        found = path.stat()
        if found.st_size > _MAX_IMAGE_BYTES:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    digest = xxhash.xxh3_128_hexdigest(content)
    return FileFacts(size_bytes=len(content), mtime_ns=found.st_mtime_ns, digest=digest)


def read_values(path: Path, dtype: np.dtype[Any], *, width: int = 1, known: str | None) -> np.ndarray:
    """(N,) or (N, width) values of a headerless file.

    Parameters
    ----------
    known: its digest, as a check found it; None where none was made.

    Raises
    ------
    DitrError: there is no such file; it has no such rows, or too many; it is not what was checked.
    """
    row = dtype.itemsize * width
    raw = _read(path, most=MAX_POINTS * row)
    if len(raw) > MAX_POINTS * row:
        raise broken(path, f"{path.stat().st_size:,} bytes, which are more than {MAX_POINTS:,} points")
    if not raw or len(raw) % row:
        raise broken(path, f"{len(raw)} bytes, which is no positive multiple of {row} ({width} x {dtype})")
    _require_known(raw, path, known)
    values = np.frombuffer(bytearray(raw), dtype=dtype)
    return values.reshape(-1, width) if width > 1 else values


def read_image(path: Path, *, fix: str = "", known: str | None = None) -> np.ndarray:
    """An image file as it is stored, (H, W[, channels]).

    Parameters
    ----------
    fix: what to do about an image that is none of a prepared folder.
    known: its digest, as a check found it; None where none was made.

    Raises
    ------
    DitrError: there is no such file; it is damaged or too large; it is not what was checked.
    """
    try:
        raw = _read(path, most=_MAX_IMAGE_BYTES, fix=fix)
    except OSError as error:
        raise broken(path, f"the image cannot be read ({error.strerror})", fix=fix) from error
    if len(raw) > _MAX_IMAGE_BYTES:
        raise broken(path, f"it has more than {_MAX_IMAGE_BYTES:,} bytes", fix=fix)
    _require_known(raw, path, known)
    try:
        with Image.open(io.BytesIO(raw)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it says that it has {image.width:,} x {image.height:,} pixels")
            return np.asarray(image)
    except Exception as error:  # what Pillow raises of damaged bytes is not to be listed
        raise broken(path, f"the image is damaged ({error})", fix=fix) from error


def missing(path: Path, *, fix: str = "") -> DitrError:
    """What to say of a file that is not there."""
    fix = fix or "`ditr data check` lists every missing file; restore it, or take the frame out of the info pickle"
    return DitrError("no such file", code=Code.DATASET, where=str(path), fix=fix)


def broken(path: Path, what: str, *, fix: str = "") -> DitrError:
    """What to say of a file that is not as it must be."""
    fix = fix or "`ditr data check` lists every such file; prepare the frame again"
    return DitrError(what, code=Code.DATASET, where=str(path), fix=fix)


def _read(path: Path, *, most: int, fix: str = "") -> bytes:
    """At most so many bytes, and one more."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except FileNotFoundError as error:
        raise missing(path, fix=fix) from error


def _require_known(raw: bytes, path: Path, known: str | None) -> None:
    if known is not None and xxhash.xxh3_128_hexdigest(raw) != known:
        what = "it is not what the data set's check read: it was changed, or damaged on the disk"
        fix = "`ditr data check` tells which, and lists every such file; restore it, or call the command again"
        raise broken(path, what, fix=fix)
