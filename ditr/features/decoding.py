"""Images read and decoded in worker processes, in batches of one size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ditr.data.loading import allow_open_files, worker_context
from ditr.data.scannet_sv import FrameSet
from ditr.errors import Code, DitrError

FEW = 64
"""Images from which on worker processes pay; they take a second or two to start."""
_AHEAD = 2
"""Batches that a worker decodes in advance: with the workers' number, what bounds the memory."""


@dataclass(frozen=True)
class ImageRequest:
    """One image to decode."""

    frames: FrameSet
    index: int

    @property
    def frame_id(self) -> str:
        return self.frames.ids[self.index]


class DecodedImages(NamedTuple):
    """Images of one size, or why one of them could not be had."""

    frame_ids: list[str]
    images: Tensor
    """(B, H, W, 3) uint8."""
    failure: tuple[str, str, str, str] | None
    """What, code, where and fix of a DitrError, which does not survive the way from a worker by itself."""


def decoded(wanted: Sequence[ImageRequest], *, batch: int, pinned: bool) -> Iterator[DecodedImages]:
    """All images, each batch of one size, in an order that depends on ``wanted`` alone.

    Raises DitrError of the first image that is missing, damaged or not of its intrinsics' size.
    """
    allow_open_files()
    workers = _workers(len(wanted))
    loader = DataLoader(
        _Images(wanted),
        batch_sampler=_batches(wanted, batch),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        collate_fn=_together,
        pin_memory=pinned,
        multiprocessing_context=worker_context() if workers else None,
    )
    for found in loader:
        if found.failure is not None:
            what, code, where, fix = found.failure
            raise DitrError(what, code=Code(code), where=where, fix=fix)
        yield found


def expect(images: int) -> None:
    """Lets the process that workers are forked from start and import, while something else goes on here."""
    if _workers(images):
        worker_context()
        forkserver.ensure_running()


def _workers(images: int) -> int:
    cores = len(os.sched_getaffinity(0))
    return cores if cores > 1 and images >= FEW else 0


class _Images(Dataset[tuple[str, np.ndarray | DitrError]]):
    def __init__(self, wanted: Sequence[ImageRequest]) -> None:
        self._wanted = wanted

    def __getitem__(self, position: int) -> tuple[str, np.ndarray | DitrError]:
        wanted = self._wanted[position]
        try:
            return wanted.frame_id, wanted.frames.image(wanted.index)
        except DitrError as error:
            return wanted.frame_id, error
        except Exception as error:
            error.add_note(f"while decoding the image of frame {wanted.frame_id}")
            raise


def _batches(wanted: Sequence[ImageRequest], batch: int) -> list[list[int]]:
    """Positions; images of one size together, those of the first image's size first."""
    of_size: dict[tuple[int, int], list[int]] = {}
    for position, each in enumerate(wanted):
        intrinsics = each.frames.intrinsics_of(each.index)
        of_size.setdefault((intrinsics.height, intrinsics.width), []).append(position)
    return [group[start : start + batch] for group in of_size.values() for start in range(0, len(group), batch)]


def _together(images: list[tuple[str, np.ndarray | DitrError]]) -> DecodedImages:
    for frame_id, image in images:
        if isinstance(image, DitrError):
            where = f"frame {frame_id}: {image.where}"
            return DecodedImages([frame_id], torch.empty(0), (image.what, image.code.value, where, image.fix))
    stacked = np.stack([image for _, image in images if isinstance(image, np.ndarray)])
    return DecodedImages([frame_id for frame_id, _ in images], torch.from_numpy(stacked), None)
