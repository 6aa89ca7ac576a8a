"""Lines of numbers and names, as captures keep their trajectories; and what of two lists belongs together in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ditr.errors import Code, DitrError
from ditr.files import read_text

_AGAIN = "export the capture again"


def read_lines(path: Path, *, fix: str = _AGAIN) -> list[list[str]]:
    """The words of every line that holds any and is no comment (``#``); DitrError if there is no such file, or it is no
    text: a name of a file in it is asked for."""
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise _broken(path, "no such file", fix) from error
    if "\0" in text:
        raise _broken(path, "holds bytes that stand in no text", fix)
    lines = text.splitlines()
    return [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def read_numbers(path: Path, *, columns: int, fix: str = _AGAIN) -> np.ndarray:
    """(R, columns) float64.

    Parameters
    ----------
    fix: what to do about a broken file.

    Raises
    ------
    DitrError: the file is missing, or a line has other than so many numbers; numbered without empty lines and comments.
    """
    rows = read_lines(path, fix=fix)
    for number, row in enumerate(rows, start=1):
        if len(row) != columns:
            raise _broken(path, f"row {number} has {len(row)} numbers, not {columns}", fix)
    try:
        return np.array(rows, dtype=np.float64).reshape(-1, columns)
    except ValueError as error:
        raise _broken(path, f"holds what are not numbers ({error})", fix) from error


def nearest_in_time(times: np.ndarray, at: np.ndarray, *, within_s: float) -> np.ndarray:
    """(M,) index into ``times`` (N,) of the one nearest to each of ``at`` (M,); -1 where none is that near.

    Both in seconds; ``times`` in any order.
    """
    if not len(times):
        return np.full(len(at), -1)
    order = np.argsort(times, kind="stable")
    after = np.searchsorted(times[order], at).clip(1, max(len(times) - 1, 1))
    before = after - 1
    after = after.clip(max=len(times) - 1)
    closer = np.abs(times[order][before] - at) <= np.abs(times[order][after] - at)
    chosen = order[np.where(closer, before, after)]
    return np.where(np.abs(times[chosen] - at) <= within_s, chosen, -1)


def _broken(path: Path, what: str, fix: str) -> DitrError:
    return DitrError(what, code=Code.DATASET, where=str(path), fix=fix)
