"""Intrinsics of single scenes: ``intrinsics/<scene>.txt`` in a prepared folder holds the matrix K as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ditr.errors import Code, DitrError
from ditr.files import read_text
from ditr.geometry.camera import Intrinsics

INTRINSICS = "intrinsics"
_FIX = (
    "write the matrix K of the scene's colour images at the data set's image size, 3x3 or 4x4 numbers as text, or "
    "delete the file to use the data set's own intrinsics"
)


def intrinsics_file(root: Path, scene: str) -> Path:
    """Where a scene's matrix is looked for."""
    return root / INTRINSICS / f"{scene}.txt"


def intrinsics_text(camera: Intrinsics) -> str:
    """What such a file holds."""
    matrix = ((camera.fx, 0.0, camera.cx), (0.0, camera.fy, camera.cy), (0.0, 0.0, 1.0))
    return "".join(" ".join(map(repr, row)) + "\n" for row in matrix)


def read_scene_intrinsics(root: Path, *, scenes: Iterable[str], default: Intrinsics) -> dict[str, Intrinsics]:
    """Scene -> intrinsics, for every scene that has a file; image sizes are the default's.

    ``DitrError`` for a file that is not the matrix of a pinhole camera of such images; the first ten and their count.
    """
    found: dict[str, Intrinsics] = {}
    broken: list[str] = []
    for scene in sorted(set(scenes)):
        path = intrinsics_file(root, scene)
        if not path.is_file():
            continue
        try:
            found[scene] = _of_matrix(_read_matrix(path), like=default)
        except ValueError as error:
            broken.append(f"{path}: {error}")
    if broken:
        shown = "".join(f"\n  {line}" for line in broken[:10])
        what = f"{len(broken)} intrinsics file{'s are' if len(broken) > 1 else ' is'} malformed:{shown}"
        raise DitrError(what, code=Code.DATASET, where=str(root / INTRINSICS), fix=_FIX)
    return found


def intrinsics_sentence(default: Intrinsics, *, scenes: int, with_file: int) -> str:
    """Which intrinsics the frames of ``scenes`` scenes use, for the results."""
    declared = f"default {default.fx:g} {default.fy:g} {default.cx:g} {default.cy:g}"
    if with_file == 0:
        return declared
    if with_file == scenes:
        return f"a file for each of {scenes} scenes"
    return f"files for {with_file} of {scenes} scenes, {declared} for the rest"


def _read_matrix(path: Path) -> np.ndarray:
    text = read_text(path).replace(",", " ")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if {len(row) for row in rows} not in ({3}, {4}) or len(rows) != len(rows[0]):
        raise ValueError("no 3x3 or 4x4 matrix of numbers")
    return np.array(rows, dtype=np.float64)


def _of_matrix(matrix: np.ndarray, *, like: Intrinsics) -> Intrinsics:
    """Checks that K projects: upper triangular without skew, its centre in the image, and nothing but K."""
    if not np.isfinite(matrix).all():
        raise ValueError("the matrix is not finite")
    plain = np.eye(len(matrix))
    plain[[0, 1], [0, 1]] = matrix[[0, 1], [0, 1]]
    plain[:2, 2] = matrix[:2, 2]
    if not np.array_equal(matrix, plain):
        raise ValueError("the matrix is not of the form [fx 0 cx; 0 fy cy; 0 0 1]")
    fx, fy, cx, cy = float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])
    if fx <= 0 or fy <= 0:
        raise ValueError(f"focal lengths {fx:g} and {fy:g} are not positive")
    if not (0 < cx < like.width and 0 < cy < like.height):
        raise ValueError(f"the centre ({cx:g}, {cy:g}) is outside an image of {like.width} x {like.height}")
    return replace(like, fx=fx, fy=fy, cx=cx, cy=cy)
