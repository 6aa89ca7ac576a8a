"""Feature maps on disk: one file a frame, whole or absent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ditr.errors import Code, DitrError


class Maps(Protocol):
    """Maps of frames by frame id, whoever computed them; can be carried to loader workers."""

    shape: tuple[int, int, int]
    """C, Hp, Wp of every map."""

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

    def read(self, frame_id: str) -> Tensor:
        """The frame's map; DitrError if it is missing, damaged, of another shape or not finite. Never zeros instead."""
        path = self.path(frame_id)
        try:
            tokens = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise self._unusable(frame_id, "there is no 2D feature map of this frame") from None
        except (ValueError, EOFError, OSError) as error:
            raise self._unusable(frame_id, f"the 2D feature map cannot be read ({error})") from error
        if tokens.dtype != np.float16 or tokens.shape != self.shape:
            what = f"the 2D feature map is {tokens.dtype} {tokens.shape}, not float16 {self.shape}"
            raise self._unusable(frame_id, what)
        if not np.isfinite(tokens).all():
            raise self._unusable(frame_id, "the 2D feature map holds values that are not finite")
        return torch.from_numpy(tokens)

    def write(self, frame_id: str, tokens: Tensor) -> None:
        """Stores the map as float16, whole or not at all; DitrError if it does not fit or overflows float16."""
        if tuple(tokens.shape) != self.shape:
            raise ValueError(f"a map of shape {tuple(tokens.shape)} for a store of {self.shape}")
        half = tokens.detach().to(device="cpu", dtype=torch.float16).contiguous()
        if not torch.isfinite(half).all():
            raise DitrError(
                "the 2D source gave values that are not finite in float16",
                code=Code.FEATURES,
                where=frame_id,
                fix="check the source's weights, and the frame's image with `ditr data show`",
            )
        path = self.path(frame_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        with unfinished.open("wb") as file:
            np.save(file, half.numpy(), allow_pickle=False)
        os.replace(unfinished, path)

    def manifest(self) -> dict[str, Any] | None:
        """What the folder's maps are made of; None where nothing was made yet."""
        path = self._manifest_path()
        return dict(json.loads(path.read_text())) if path.is_file() else None

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replaces the manifest, whole or not at all."""
        path = self._manifest_path()
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(manifest, indent=2) + "\n")
        os.replace(unfinished, path)

    def missing(self, frame_ids: Iterable[str]) -> list[str]:
        """The ids that have no map yet, in their order."""
        present = {entry.name for entry in os.scandir(self.folder)} if self.folder.is_dir() else set()
        return [frame_id for frame_id in frame_ids if self.path(frame_id).name not in present]

    def path(self, frame_id: str) -> Path:
        """Where the frame's map is, or would be."""
        return self.folder / f"{frame_id}.npy"

    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def _unusable(self, frame_id: str, what: str) -> DitrError:
        path = self.path(frame_id)
        fix = "run the spec again, which makes missing maps" if not path.exists() else f"delete {path} and run again"
        return DitrError(what, code=Code.FEATURES, where=f"frame {frame_id}: {path}", fix=fix)
