"""The vertices of a PLY mesh. Own code, for the known readers are under the GPL or load the faces one by one."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from ditr.errors import Code, DitrError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2", "ushort": "<u2",
    "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4", "float": "<f4", "float32": "<f4",
    "double": "<f8", "float64": "<f8",
}  # fmt: skip
_MAX_HEADER_LINES = 200


def read_vertices(path: Path) -> np.ndarray:
    """(N, 3) float64 x, y, z in metres of a binary little-endian PLY file whose vertices come first, as ScanNet's do.

    ``DitrError`` where the file is missing, cut off, of another kind, or holds a vertex that is not finite.
    """
    try:
        with path.open("rb") as file:
            count, dtype = _vertex_layout(file, path)
            raw = file.read(count * dtype.itemsize)
    except FileNotFoundError as error:
        raise _broken(path, "no such mesh") from error
    if len(raw) != count * dtype.itemsize:
        raise _broken(path, f"the file ends after {len(raw) // dtype.itemsize} of {count} vertices")
    vertices = np.frombuffer(raw, dtype=dtype)
    xyz = np.stack([vertices[axis].astype(np.float64) for axis in "xyz"], axis=1)
    if not len(xyz) or not np.isfinite(xyz).all():
        raise _broken(path, "has no vertices" if not len(xyz) else "holds vertices that are not finite")
    return xyz


def _vertex_layout(file: BinaryIO, path: Path) -> tuple[int, np.dtype[np.void]]:
    """Reads the header; the file then stands at the first vertex."""
    lines = _header(file, path)
    if ["format", "binary_little_endian", "1.0"] not in lines:
        raise _broken(path, "is no binary little-endian PLY file")
    elements = [index for index, line in enumerate(lines) if line[:1] == ["element"]]
    if not elements or lines[elements[0]][1:2] != ["vertex"]:
        raise _broken(path, "its first element is not the vertices")
    end = elements[1] if len(elements) > 1 else len(lines)
    properties = [line for line in lines[elements[0] + 1 : end] if line[:1] == ["property"]]
    try:
        dtype = np.dtype([(name, _TYPES[kind]) for _, kind, name in properties])
        count = int(lines[elements[0]][2])
    except (KeyError, ValueError, IndexError) as error:
        raise _broken(path, "the header's vertex element cannot be read") from error
    if not {"x", "y", "z"} <= set(dtype.names or ()):
        raise _broken(path, "its vertices have no x, y and z")
    return count, dtype


def _header(file: BinaryIO, path: Path) -> list[list[str]]:
    lines: list[list[str]] = []
    for raw in iter(lambda: file.readline(1000), b""):
        line = raw.decode("latin1").split()
        if line == ["end_header"] and lines and lines[0] == ["ply"]:
            return lines
        lines.append(line)
        if len(lines) > _MAX_HEADER_LINES:
            break
    raise _broken(path, "has no PLY header")


def _broken(path: Path, what: str) -> DitrError:
    return DitrError(what, code=Code.DATASET, where=str(path), fix="download the scan's mesh again")
