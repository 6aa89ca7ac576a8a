"""Depth images: whole numbers in PNG, metres in OpenEXR, and Record3D's compressed ones."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from ditr.data.frame_files import read_image
from ditr.errors import Code, DitrError

_AGAIN = "export the capture's depth images again"
_SATURATED = 65_535
"""What a sensor's 16 bits hold where nothing was measured, or more than they can say."""


def read_depth(path: Path, *, per_m: float, size: tuple[int, int] | None = None) -> np.ndarray:
    """(h, w) float64 metres, 0 where nothing was measured.

    Parameters
    ----------
    per_m: what the file says of one metre.
    size: h and w that it must have; None where they are not known yet, which a ``.depth`` file does not say.

    Raises
    ------
    DitrError: the file is missing, damaged or of another size; or what reads it is not installed.
    """
    values = _READERS.get(path.suffix, _whole_numbers)(path, size)
    if values.ndim != 2 or values.shape != (size or values.shape):
        raise _broken(path, f"the depth image is {values.shape} {values.dtype}, not {size or 'one channel'}")
    metres = values.astype(np.float64) / per_m
    return np.where(np.isfinite(metres) & (metres > 0), metres, 0.0)


def _whole_numbers(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    values = read_image(path, fix=_AGAIN)
    if values.dtype.kind not in "ui":
        raise _broken(path, f"the depth image is {values.shape} {values.dtype}, not of whole numbers")
    return np.where(values == _SATURATED, 0, values)


def _open_exr(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    library = _library_for(path, "OpenEXR")
    try:
        channels = library.File(str(path)).channels()
        return np.asarray(next(channels[name].pixels for name in ("Y", "Z", "R") if name in channels))
    except Exception as error:  # what the library raises of damaged bytes is not to be listed
        raise _broken(path, f"the depth image is damaged ({error or type(error).__name__})") from error


def _lzfse(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Record3D's: float32 metres, row after row (docs/reference/captures.md, Record3D)."""
    assert size is not None, "nothing else says the size of such a file"
    library = _library_for(path, "lzfse")
    try:
        return np.frombuffer(library.decompress(path.read_bytes()), dtype=np.float32).reshape(size)
    except Exception as error:  # as above
        raise _broken(path, f"the depth image is damaged ({error or type(error).__name__})") from error


_READERS = {".exr": _open_exr, ".depth": _lzfse}


def _library_for(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise _broken(path, "no such file")
    try:
        return import_module(name)
    except ImportError as error:
        what, fix = f"{name}, which reads such files, is not installed", "pip install 'ditr[record3d]'"
        raise DitrError(what, code=Code.ENVIRONMENT, where=str(path), fix=fix) from error


def _broken(path: Path, what: str) -> DitrError:
    return DitrError(what, code=Code.DATASET, where=str(path), fix=_AGAIN)
