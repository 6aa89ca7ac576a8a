"""Info pickles of format v2: which frames a split has and where their files lie (reference: ESAM section 1.4).

Pickles can run code when they are read. Here only plain containers and float64 arrays are let in; anything else that a
file names is refused.
"""

from __future__ import annotations

import codecs
import io
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ditr.errors import Code, DitrError

INFO_VERSION = "1.1"
_NUM_POINT_FEATURES = 6
_REBUILD = "rebuild it with ESAM's tools/create_data.py, or make the embedded data set anew"


@dataclass(frozen=True, kw_only=True)
class FrameInfo:
    """One frame of a split. File names are relative to their folder of the data set, the image to its root."""

    scene: str
    """``scene0000_00``."""
    number: str
    """The frame's number in its scene, as written in file names."""
    points_file: str
    superpoints_file: str
    instances_file: str
    semantics_file: str
    image: str
    pose_c2w: np.ndarray
    """(4, 4) float64, camera to the world that the stored points are in, metres; may hold NaN, which the reader of the
    frame reports."""
    axis_align: np.ndarray
    """(4, 4) float64; nothing here uses it, it is kept so that what was read can be written again."""

    features_file: str | None = None
    """``clip_feat_path`` as it stands in the pickle; nothing here reads the file."""
    centred: bool = True
    """False for frames of multi-view infos: their points and poses are in the scan's raw world."""

    @property
    def id(self) -> str:
        """``<scene>_<number>``."""
        return f"{self.scene}_{self.number}"


@dataclass(frozen=True, kw_only=True)
class InfoFile:
    """One split."""

    dataset: str
    categories: Mapping[str, int]
    """Thing class name -> thing label."""
    frames: tuple[FrameInfo, ...]


def read_infos(path: Path) -> InfoFile:
    """Reads one split; ``DitrError`` where the file is missing, holds anything but data, or breaks the format."""
    try:
        content = _DataUnpickler(io.BytesIO(path.read_bytes()), where=path).load()
    except FileNotFoundError as error:
        raise DitrError("no such info pickle", code=Code.DATASET, where=str(path), fix=_REBUILD) from error
    except DitrError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise _broken(path, f"cannot be read as a pickle ({type(error).__name__}: {error})") from error
    metainfo, entries = _get(content, "metainfo", dict, path), _get(content, "data_list", list, path)
    frames = tuple(_frame_info(entry, f"{path}: frame {index}") for index, entry in enumerate(entries))
    seen: set[str] = set()
    for frame in frames:
        if frame.id in seen:
            raise _broken(path, f"frame {frame.id} is listed twice")
        seen.add(frame.id)
    return InfoFile(
        dataset=str(_get(metainfo, "dataset", str, path)),
        categories=dict(_get(metainfo, "categories", dict, path)),
        frames=frames,
    )


def write_infos(path: Path, infos: InfoFile) -> None:
    """Writes one split so that ESAM under numpy 1 reads it too; whole or not at all."""
    content = {
        "metainfo": {
            "categories": dict(infos.categories),
            "dataset": infos.dataset,
            "info_version": INFO_VERSION,
        },
        "data_list": [_entry(frame) for frame in infos.frames],
    }
    # Protocol 2 writes module names as plain lines, without lengths, so that numpy 2's own can become numpy 1's,
    # which both versions know.
    text = pickle.dumps(content, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(text)
    beside.replace(path)


def _frame_info(entry: object, where: str) -> FrameInfo:
    points = _get(entry, "lidar_points", dict, where)
    if _get(points, "num_pts_feats", int, where) != _NUM_POINT_FEATURES:
        raise _broken(where, f"num_pts_feats is {points['num_pts_feats']}, not {_NUM_POINT_FEATURES}")
    lidar_path = _get(points, "lidar_path", str, where)
    if not lidar_path.endswith(".bin") or len(lidar_path) < len("scene0000_00_0.bin"):
        raise _broken(where, f"lidar_path {lidar_path!r} is not of the form <scene>_<frame>.bin")
    return FrameInfo(
        scene=lidar_path[:12],
        number=lidar_path[13:].removesuffix(".bin"),
        points_file=lidar_path,
        superpoints_file=_get(entry, "super_pts_path", str, where),
        instances_file=_get(entry, "pts_instance_mask_path", str, where),
        semantics_file=_get(entry, "pts_semantic_mask_path", str, where),
        image=_get(entry, "img_path", str, where),
        pose_c2w=_matrix(_get(entry, "pose", np.ndarray, where), "pose", where),
        axis_align=_matrix(_get(entry, "axis_align_matrix", list, where), "axis_align_matrix", where),
    )


def _entry(frame: FrameInfo) -> dict[str, Any]:
    return {
        "lidar_points": {"num_pts_feats": _NUM_POINT_FEATURES, "lidar_path": frame.points_file},
        "pts_semantic_mask_path": frame.semantics_file,
        "pts_instance_mask_path": frame.instances_file,
        "super_pts_path": frame.superpoints_file,
        "img_path": frame.image,
        "pose": np.ascontiguousarray(frame.pose_c2w, dtype=np.float64),
        "axis_align_matrix": frame.axis_align.tolist(),
        "instances": [],
    }


def _get(holder: object, key: str, kind: type, where: object) -> Any:
    if not isinstance(holder, dict) or key not in holder:
        raise _broken(where, f"has no {key!r}: it is no info pickle of format v2 for single frames")
    if not isinstance(holder[key], kind):
        raise _broken(where, f"{key!r} is a {type(holder[key]).__name__}, not a {kind.__name__}")
    return holder[key]


def _matrix(value: object, key: str, where: str) -> np.ndarray:
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4):
        raise _broken(where, f"{key!r} is not a 4x4 matrix")
    return matrix


def _broken(where: object, what: str) -> DitrError:
    return DitrError(what, code=Code.DATASET, where=str(where), fix=_REBUILD)


class _Rebuild:
    """A function that a pickle may call. It has no dictionary and sets no attributes, so a pickle cannot change it."""

    __slots__ = ("_function",)
    _function: Callable[..., object]

    def __init__(self, function: Callable[..., object]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("a pickle of data sets no attributes")


def _empty_array(_kind: object, _shape: object, _code: object) -> object:
    return np.empty(0, dtype=np.float64)


def _float64(code: object, *_flags: object) -> object:
    if code not in ("f8", "<f8", "float64"):
        raise pickle.UnpicklingError(f"an array of dtype {code!r}, not float64")
    return np.dtype("f8", False, True)  # a copy, for the pickle sets its state


def _array_of_buffer(buffer: bytes, _dtype: object, shape: tuple[int, ...], order: Any) -> object:
    return np.frombuffer(bytes(buffer), dtype=np.float64).reshape(shape, order=order).copy()


def _latin1(text: str, encoding: str) -> object:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return codecs.encode(text, "latin1")


_ALLOWED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Rebuild(_float64),
    ("_codecs", "encode"): _Rebuild(_latin1),
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Rebuild(_empty_array)
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _Rebuild(_array_of_buffer)


class _DataUnpickler(pickle.Unpickler):
    """Builds plain containers and float64 arrays, and refuses to import anything."""

    def __init__(self, file: io.BytesIO, *, where: Path) -> None:
        super().__init__(file)
        self._where = where

    def find_class(self, module: str, name: str) -> object:
        """Called for every global that the pickle names."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise DitrError(
            f"the pickle asks for {module}.{name}; only plain containers and float64 arrays are read, for a pickle "
            "can run code",
            code=Code.DATASET,
            where=str(self._where),
            fix="use a file from a source you trust, rebuilt with ESAM's tools/create_data.py",
        )
