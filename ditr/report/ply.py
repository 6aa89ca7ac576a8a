"""Coloured points as a PLY file, which MeshLab, CloudCompare, Blender and Open3D read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ditr.files import replacing

_POINT = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("instance", "<i4")]
)
_TYPES = {"<f4": "float", "|u1": "uchar", "<i4": "int"}


def write_ply(path: Path, *, xyz: np.ndarray, rgb: np.ndarray, instance: np.ndarray) -> None:
    """Writes the points in binary, whole or not at all.

    Parameters
    ----------
    xyz: (N, 3) metres.
    rgb: (N, 3) uint8.
    instance: (N,) instance of each point, -1 = of none.
    """
    points = np.empty(len(xyz), dtype=_POINT)
    columns = (*np.asarray(xyz).T, *np.asarray(rgb).T, instance)
    for name, column in zip(_POINT.names or (), columns, strict=True):
        points[name] = column
    properties = [f"property {_TYPES[_POINT[name].str]} {name}" for name in _POINT.names or ()]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header"]
    with replacing(path, durable=False) as beside:
        beside.write_bytes("\n".join((*header, "")).encode("ascii") + points.tobytes())
