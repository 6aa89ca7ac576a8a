"""Feature maps on disk: one file a frame, whole or absent, with its digest."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import xxhash
from torch import Tensor

from ditr import layouts
from ditr.errors import Code, DitrError
from ditr.features.journal import Journal
from ditr.files import read_json, replacing, write_json

JOURNAL = "digests.xxh128"
LOCK = ".lock"
_HEADER_BYTES = 128
_ALWAYS_SAID = {"source", "weights_digest", "computed_on", "shape"}
_INFINITE = np.uint16(0x7C00)
"""The exponent bits of a float16, all set in infinities and NaNs alone."""


class Maps(Protocol):
    """Maps of frames by frame id, whoever computed them; can be carried to loader workers."""

    shape: tuple[int, int, int]
    """C, Hp, Wp of every map; of features of points (C, 1, 1), where a frame's are (C, 1, N)."""

    def read(self, frame_id: str) -> Tensor:
        """The frame's map, float16; DitrError if it is missing, damaged, of another shape or not finite."""

    def missing(self, frame_ids: Iterable[str]) -> list[str]:
        """The ids that have no map, in their order."""

    def path(self, frame_id: str) -> Path:
        """Where the frame's map is, or would be."""

    def manifest(self) -> dict[str, Any] | None:
        """What the maps are made of; None where nobody said."""


class FeatureStore:
    """Maps (C, Hp, Wp) float16 of frames, by frame id; holds no open file, so that loader workers can carry it.

    Parameters
    ----------
    folder: where the maps are; made on the first write.
    shape: C, Hp, Wp of every map.
    """

    def __init__(self, folder: Path, *, shape: tuple[int, int, int]) -> None:
        self.folder = folder
        self.shape = shape
        self.map_bytes = prod(shape) * 2 + _HEADER_BYTES
        self._journal = Journal(folder / JOURNAL)
        self._digests: dict[str, str] | None = None

    def read(self, frame_id: str) -> Tensor:
        """The frame's map; DitrError if it is missing, damaged, of another shape or not finite. Never zeros instead."""
        raw = self._bytes(frame_id)
        found = xxhash.xxh3_128_hexdigest(raw)
        known = self.digest(frame_id)
        if known != found:
            self._digests = None  # the map may have been made anew since the journal was read
            known = self.digest(frame_id)
        if known not in (None, found):
            what = f"the 2D feature map is damaged: its digest is {found}, that of what was written {known}"
            raise self._unusable(frame_id, what)
        tokens = self._tokens(frame_id, raw)
        if known is None and not finite_halves(tokens):
            raise self._not_finite(frame_id)
        return torch.from_numpy(tokens)

    def write(self, frame_id: str, tokens: Tensor) -> None:
        """Stores the map as float16, whole or not at all, and its digest; safe from several threads.

        Raises DitrError if values are not finite in float16.
        """
        if tuple(tokens.shape) != self.shape:
            raise ValueError(f"a map of shape {tuple(tokens.shape)} for a store of {self.shape}")
        half = tokens.detach().to(device="cpu", dtype=torch.float16).contiguous().numpy()
        if not finite_halves(half):
            raise DitrError(
                "the 2D source gave values that are not finite in float16",
                code=Code.FEATURES,
                where=f"frame {frame_id}",
                fix="check the source's weights, and the frame's image with `ditr data show`",
            )
        parts = (_header(half), half.data.cast("B"))
        path = self.path(frame_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=False) as beside, beside.open("wb", buffering=0) as file:
            for part in parts:
                _write_all(file, part)
        digest = xxhash.xxh3_128()
        for part in parts:
            digest.update(part)
        self._journal.append(path.name, digest.hexdigest())

    def manifest(self) -> dict[str, Any] | None:
        """What the folder's maps are made of; None where nothing was made yet.

        Raises
        ------
        NewerLayout: a newer ditr made them.
        """
        where = str(_manifest_path(self.folder))
        layouts.require_known(_said(self.folder), newest=layouts.FEATURES, code=Code.FEATURES, where=where)
        return read_manifest(self.folder)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replaces the manifest, whole or not at all."""
        write_json(_manifest_path(self.folder), {"schema": layouts.FEATURES} | dict(manifest))

    def missing(self, frame_ids: Iterable[str]) -> list[str]:
        """The ids that have no map yet, in their order."""
        present = {entry.name for entry in os.scandir(self.folder)} if self.folder.is_dir() else set()
        return [frame_id for frame_id in frame_ids if self.path(frame_id).name not in present]

    def digest(self, frame_id: str) -> str | None:
        """xxh3_128 of the file that was written for the frame, in hex; None if the journal does not name it."""
        if self._digests is None:
            self._digests = self._journal.read()
        return self._digests.get(self.path(frame_id).name)

    def clear(self) -> None:
        """Removes all maps and their journal; only for who holds the folder's lock."""
        for entry in os.scandir(self.folder):
            if entry.name.endswith(".npy") or entry.name == JOURNAL:
                os.unlink(entry.path)
        self._digests = None

    def recover(self, frame_ids: Iterable[str]) -> None:
        """Puts right what a killed process left; only for who holds the folder's lock.

        Unfinished files go, a torn line of the journal too, and a whole map that the journal does not name is read,
        looked at and named.
        """
        for entry in os.scandir(self.folder):
            if entry.name.startswith(".") and entry.name != LOCK:
                os.unlink(entry.path)
        self._journal.mend()
        self._digests = None
        for frame_id in frame_ids:
            if self.digest(frame_id) is None and self.path(frame_id).is_file():
                raw = self._bytes(frame_id)
                if not finite_halves(self._tokens(frame_id, raw)):
                    raise self._not_finite(frame_id)
                self._journal.append(self.path(frame_id).name, xxhash.xxh3_128_hexdigest(raw))
        self._digests = None

    def path(self, frame_id: str) -> Path:
        """Where the frame's map is, or would be."""
        return self.folder / f"{frame_id}.npy"

    def _bytes(self, frame_id: str) -> bytes:
        try:
            return self.path(frame_id).read_bytes()
        except FileNotFoundError:
            raise self._unusable(frame_id, "there is no 2D feature map of this frame") from None
        except OSError as error:
            raise self._unusable(frame_id, f"the 2D feature map cannot be read ({error})") from error

    def _tokens(self, frame_id: str, raw: bytes) -> np.ndarray:
        """The map in a file's bytes, of the right type and shape."""
        try:
            tokens = np.asarray(np.load(io.BytesIO(raw), allow_pickle=False))
        except Exception as error:  # what numpy raises of a damaged header is not to be listed
            raise self._unusable(frame_id, f"the 2D feature map cannot be read ({error})") from error
        if tokens.dtype != np.float16 or tokens.shape != self.shape:
            what = f"the 2D feature map is {tokens.dtype} {tokens.shape}, not float16 {self.shape}"
            raise self._unusable(frame_id, what)
        return tokens

    def _not_finite(self, frame_id: str) -> DitrError:
        return self._unusable(frame_id, "the 2D feature map holds values that are not finite")

    def _unusable(self, frame_id: str, what: str) -> DitrError:
        path = self.path(frame_id)
        fix = "run the spec again, which makes missing maps" if not path.exists() else f"delete {path} and run again"
        return DitrError(what, code=Code.FEATURES, where=f"frame {frame_id}: {path}", fix=fix)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What the maps in a folder are made of; None where nobody said, or what was said cannot be read any more."""
    said = _said(folder)
    return said if isinstance(said, dict) and said.keys() >= _ALWAYS_SAID else None


def _said(folder: Path) -> Any:
    try:
        return read_json(_manifest_path(folder))
    except (OSError, ValueError):
        return None


def _manifest_path(folder: Path) -> Path:
    return folder / "manifest.json"


def finite_halves(tokens: np.ndarray) -> bool:
    """Whether all of an array of float16 is finite; by bits, for nobody has fast arithmetic of that type on a CPU."""
    return bool((tokens.view(np.uint16) & _INFINITE).max() < _INFINITE)


def _header(tokens: np.ndarray) -> bytes:
    """What precedes the values in an ``.npy`` file."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(tokens))
    return stream.getvalue()


def _write_all(file: io.FileIO, part: bytes | memoryview) -> None:
    """A file without a buffer may take less than it is given."""
    left = memoryview(part)
    while left:
        left = left[file.write(left) :]
