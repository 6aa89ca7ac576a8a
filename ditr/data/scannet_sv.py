"""Frames of a folder in the layout of ScanNet200-SV (reference: ESAM section 1.3). One reader serves every data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ditr.data.classes import MAX_RAW_ID
from ditr.data.frame import Frame
from ditr.data.info_pickle import InfoFile
from ditr.errors import Code, DitrError
from ditr.geometry.camera import Intrinsics

POINTS, SUPERPOINTS, INSTANCES, SEMANTICS = "points", "super_points", "instance_mask", "semantic_mask"
INFO_FILES = {
    "train": "scannet200_sv_oneformer3d_infos_train.pkl",
    "val": "scannet200_sv_oneformer3d_infos_val.pkl",
}
POINT_COUNT = 20_000
"""Points a frame as the preparation writes them; the reader takes any number."""
_POINT_FEATURES = 6


class FrameSet:
    """The frames of one split, read when asked for; cheap to pickle, so that loader workers can hold it.

    Parameters
    ----------
    root: folder of the data set.
    infos: the split's info file.
    intrinsics: of every colour image.
    """

    def __init__(self, root: Path, *, infos: InfoFile, intrinsics: Intrinsics) -> None:
        self.root = root
        self.infos = infos
        self.intrinsics = intrinsics
        self.ids = tuple(info.id for info in infos.frames)

    def __len__(self) -> int:
        return len(self.ids)

    def frame(self, index: int) -> Frame:
        """Points and labels of frame ``index``; ``DitrError`` with the path of what is missing or broken."""
        info = self.infos.frames[index]
        points_path = self.root / POINTS / info.points_file
        points = _read(points_path, np.dtype(np.float32), width=_POINT_FEATURES)
        count = len(points)
        superpoints = self._ids(SUPERPOINTS, info.superpoints_file, count)
        instances = self._ids(INSTANCES, info.instances_file, count)
        semantics = self._ids(SEMANTICS, info.semantics_file, count, highest=MAX_RAW_ID)
        if not np.isfinite(points).all():
            raise _broken(points_path, f"{np.sum(~np.isfinite(points).all(axis=1))} points are not finite")
        if not np.isfinite(info.pose_c2w).all():
            where = self.root / "pose_centered" / info.scene / f"{info.number}.npy"
            raise _broken(where, f"the pose of frame {info.id} is not finite; its info pickle holds the same matrix")
        present = np.zeros(int(superpoints.max()) + 1, dtype=bool)
        present[superpoints] = True
        if not present.all():
            missing = np.flatnonzero(~present)
            raise _broken(
                self.root / SUPERPOINTS / info.superpoints_file,
                f"superpoint ids are not contiguous: {missing[0]} and {len(missing) - 1} more below "
                f"{superpoints.max()} have no point",
            )
        return Frame(
            id=info.id,
            scene=info.scene,
            points=points,
            superpoints=superpoints,
            instance_ids=instances,
            semantic_ids=semantics,
            image_path=self.root / info.image,
            pose_c2w=info.pose_c2w,
            intrinsics=self.intrinsics,
        )

    def image(self, index: int) -> np.ndarray:
        """Colour image (H, W, 3) uint8 of frame ``index``; ``DitrError`` if missing, damaged or of another size."""
        path = self.root / self.infos.frames[index].image
        image = read_image(path).astype(np.uint8, copy=False)
        expected = (self.intrinsics.height, self.intrinsics.width, 3)
        if image.shape != expected:
            raise _broken(path, f"the image is {image.shape}, not {expected}: the intrinsics would not fit")
        return image

    def _ids(self, kind: str, name: str, count: int, *, highest: int | None = None) -> np.ndarray:
        path = self.root / kind / name
        ids = _read(path, np.dtype(np.int64))
        if len(ids) != count:
            raise _broken(path, f"{len(ids)} ids for {count} points")
        if ids.min() < 0 or (highest is not None and ids.max() > highest):
            bound = f"0 to {highest}" if highest is not None else "0 and above"
            raise _broken(path, f"ids from {ids.min()} to {ids.max()}, allowed are {bound}")
        return ids


def read_image(path: Path) -> np.ndarray:
    """Any image file as an array (H, W[, 3]); ``DitrError`` if missing or damaged."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB") if image.mode not in ("I;16", "I") else image)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (UnidentifiedImageError, OSError) as error:
        raise _broken(path, f"the image is damaged ({error})") from error


def _read(path: Path, dtype: np.dtype[Any], *, width: int = 1) -> np.ndarray:
    """(N,) or (N, width) values of a headerless file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise _missing(path) from error
    row = dtype.itemsize * width
    if not raw or len(raw) % row:
        raise _broken(path, f"{len(raw)} bytes are no multiple of {row} ({width} x {dtype})")
    values = np.frombuffer(bytearray(raw), dtype=dtype)
    return values.reshape(-1, width) if width > 1 else values


def _missing(path: Path) -> DitrError:
    fix = "`ditr data check` lists every missing file; restore it, or take the frame out of the info pickle"
    return DitrError("no such file", code=Code.DATASET, where=str(path), fix=fix)


def _broken(path: Path, what: str) -> DitrError:
    fix = "`ditr data check` lists every such file; prepare the frame again"
    return DitrError(what, code=Code.DATASET, where=str(path), fix=fix)
