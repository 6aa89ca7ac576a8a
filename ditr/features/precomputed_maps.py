"""2D features that somebody else computed: a folder of ``.pt`` or ``.npy`` files, read as they are."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from ditr.errors import Code, DitrError
from ditr.features.store import finite_halves
from ditr.spec.entries import GivenEntry, PointsEntry
from ditr.spec.feature_maps import given_shape
from ditr.weights.archive import require_checksums
from ditr.weights.file import reason_of
from ditr.weights.tuples import require_small_tuples

_DICT_KEY = "pix"
_NUMPY = ".npy"
_FIELDS = {"scene", "number", "id"}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class PrecomputedMaps:
    """Maps (C, Hp, Wp) float16 of frames, or features (C, 1, N) of their points; holds no open file, so that loader
    workers can carry it.

    A file is a tensor (C, Hp, Wp) or (1, C, Hp, Wp), or (N, C) of points; or a dict that has it at "pix"
    (docs/reference/esam.md, Feature paths). It is in numpy's format if its name ends in ``.npy``, else in torch's zip
    format, whose checksums are looked at. Only numbers are read, never objects that could run code.

    Parameters
    ----------
    folder: where the files are.
    entry: which shape they have, and how their paths follow from the frames.
    frame_ids: the frames that are read, which the manifest's digest is of.
    """

    def __init__(self, folder: Path, *, entry: GivenEntry, frame_ids: Iterable[str] = ()) -> None:
        self.folder = folder
        self.shape = given_shape(entry)
        self._entry = entry
        self._frame_ids = tuple(frame_ids)
        self._require_template()

    def read(self, frame_id: str) -> Tensor:
        """The frame's map; DitrError if it is missing, damaged, of another shape or not finite. Never zeros instead."""
        path = self.path(frame_id)
        try:
            content = _content(path)
        except FileNotFoundError:
            raise self._unusable(frame_id, f"there is no {self._what} of this frame") from None
        except Exception as error:  # what a foreign file can raise is not to be listed; all of it means the same
            raise self._unreadable(frame_id, error) from error
        tokens = content.get(_DICT_KEY) if isinstance(content, dict) else content
        if not isinstance(tokens, Tensor) or tokens.dtype not in _FLOATS:
            what = f'neither a tensor of floats nor a dict that has one at "{_DICT_KEY}"'
            raise self._unusable(frame_id, f"the {self._what} is {what}")
        half = self._as_map(tokens.detach(), frame_id).to(torch.float16).contiguous()
        if not finite_halves(half.numpy()):
            raise self._unusable(frame_id, f"the {self._what} holds values that are not finite in float16")
        return half

    def _as_map(self, tokens: Tensor, frame_id: str) -> Tensor:
        """(C, Hp, Wp), or (C, 1, N) of points: at least 2, as one row would be read as that of all points."""
        if isinstance(self._entry, PointsEntry):
            if tokens.ndim == 2 and len(tokens) > 1 and tokens.shape[1] == self._entry.channels:
                return tokens.T[:, None]
            wanted = f"(N, {self._entry.channels})"
        else:
            tokens = tokens[0] if tokens.ndim == 4 and len(tokens) == 1 else tokens
            if tuple(tokens.shape) == self.shape:
                return tokens
            wanted = str(self.shape)
        what = f"the {self._what} is {tuple(tokens.shape)}, not {wanted} as its registry entry says"
        raise self._unusable(frame_id, what)

    def missing(self, frame_ids: Iterable[str]) -> list[str]:
        """The ids that have no map, in their order; each folder is listed once."""
        listed: dict[Path, set[str]] = {}
        absent = []
        for frame_id in frame_ids:
            path = self.path(frame_id)
            if path.parent not in listed:
                listed[path.parent] = {file.name for file in os.scandir(path.parent)} if path.parent.is_dir() else set()
            if path.name not in listed[path.parent]:
                absent.append(frame_id)
        return absent

    def require(self, frame_ids: Iterable[str]) -> None:
        """Raises DitrError that names the first frame without a map, and how many more there are."""
        if absent := self.missing(frame_ids):
            more = f", and {len(absent) - 1} more frames have none" if len(absent) > 1 else ""
            raise self._unusable(absent[0], f"there is no {self._what} of this frame{more}")

    def path(self, frame_id: str) -> Path:
        """Where the frame's map is, or would be; never outside the folder."""
        scene, _, number = frame_id.rpartition("_")
        relative = self._entry.files.format(scene=scene, number=number, id=frame_id)
        parts = Path(relative)
        if parts.is_absolute() or ".." in parts.parts or not parts.name:
            raise self._template(f"leads out of the folder: {relative} for frame {frame_id}")
        return self.folder / parts

    def manifest(self) -> dict[str, Any]:
        """What is known of the maps. Nobody said which weights made them, so there is a digest of the files instead.

        Raises DitrError as ``digest`` does.
        """
        return {
            "source": "precomputed",
            "entry": self._entry.model_dump(mode="json"),
            "folder": str(self.folder),
            "weights_digest": None,
            "weights_stamp": None,
            "maps_digest": self.digest(),
            "shape": list(self.shape),
        }

    def digest(self) -> str:
        """Of every frame's path and checksums; the numbers themselves are held against these when a map is read.

        numpy's files have no checksums, so they are read whole. Raises DitrError for a file that cannot be read, or
        that should be a zip file of torch's and is none.
        """
        digest = xxhash.xxh3_128()
        for frame_id in self._frame_ids:
            path = self.path(frame_id)
            try:
                sums = _checksums(path)
            except Exception as error:
                raise self._unreadable(frame_id, error) from error
            digest.update(f"{path.relative_to(self.folder)} {sums}\n".encode())
        return digest.hexdigest()

    def _require_template(self) -> None:
        """A template that leads nowhere is told when it is first seen, and not in a loader worker."""
        try:
            fields = {name for _, name, _, _ in Formatter().parse(self._entry.files) if name is not None}
        except ValueError as error:
            raise self._template(f"is no template ({error})") from error
        if not fields <= _FIELDS or not fields & {"number", "id"}:
            raise self._template("needs {number} or {id}, and may have {scene}")
        self.path("scene0000_00_0")

    def _unreadable(self, frame_id: str, error: Exception) -> DitrError:
        return self._unusable(frame_id, f"the {self._what} cannot be read: {reason_of(error)}")

    @property
    def _what(self) -> str:
        return f"precomputed {'feature table' if isinstance(self._entry, PointsEntry) else '2D feature map'}"

    def _unusable(self, frame_id: str, what: str) -> DitrError:
        path = self.path(frame_id)
        sizes = "channels" if isinstance(self._entry, PointsEntry) else "channels, rows or columns"
        fix = f"put the file there, or correct path, files, {sizes} of the entry under registry/features"
        return DitrError(what, code=Code.FEATURES, where=f"frame {frame_id}: {path}", fix=fix)

    def _template(self, what: str) -> DitrError:
        fix = "correct files of the entry under registry/features, such as {scene}/{number}.pt"
        return DitrError(f"files: {self._entry.files} {what}", code=Code.REGISTRY, where=str(self.folder), fix=fix)


def _content(path: Path) -> object:
    """What a file holds."""
    raw = path.read_bytes()
    if path.suffix == _NUMPY:
        return torch.from_numpy(np.load(io.BytesIO(raw), allow_pickle=False))
    require_checksums(io.BytesIO(raw))
    require_small_tuples(io.BytesIO(raw))
    return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)


def _checksums(path: Path) -> list[tuple[str, int, int]]:
    """Of a file's parts: name, bytes, and a sum."""
    if path.suffix == _NUMPY:
        raw = path.read_bytes()
        return [(path.name, len(raw), xxhash.xxh3_64_intdigest(raw))]
    with zipfile.ZipFile(path) as archive:
        return [(one.filename, one.file_size, one.CRC) for one in archive.infolist()]
