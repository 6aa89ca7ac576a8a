"""Pictures of rooms that no registered data set holds, and for the probe the texture that covers each patch."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ditr.rooms.frames import FrameTask, Shot, shoot
from ditr.rooms.textures import FINE_KINDS
from ditr.spec.entries import SynthRoomsEntry
from ditr.spec.registry import Registry

TEXTURE_SHARE = 0.4
PATCH = 16
"""Pixels of the camera's image per patch of the source, which sees 480 x 640 pixels as 420 x 560."""
COVERED = 0.75
"""Share of a patch's pixels that one material must cover for the patch to have its texture."""
NO_TEXTURE = -1


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """Scene numbers ``first`` to ``first + scenes - 1`` of one seed, ``frames`` pictures each."""

    seed: int
    first: int
    scenes: int
    frames: int = 1

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.scenes)


def take(rooms: Rooms, *, pool: Executor) -> np.ndarray:
    """(n, 480, 640, 3) uint8 pictures and nothing else: what training may see."""
    return np.stack(list(pool.map(_picture, _tasks(rooms), chunksize=4)))


def take_labelled(rooms: Rooms, *, pool: Executor) -> tuple[np.ndarray, np.ndarray]:
    """The pictures, and (n, 30, 40) int64 textures: index into FINE_KINDS, or -1."""
    pairs = list(pool.map(_labelled_picture, _tasks(rooms), chunksize=4))
    return np.stack([picture for picture, _ in pairs]), np.stack([texture for _, texture in pairs])


def photographers(workers: int | None = None) -> Executor:
    """Processes that take pictures, as many as the machine has cores.

    Fresh interpreters: forking a process that runs threads can hang.
    """
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def scenes_of_registered_sets(registry: Registry) -> set[int]:
    """Every scene number of every embedded data set, train and val."""
    entries = [registry.dataset(name) for name in registry.names("datasets")]
    return {
        number
        for entry in entries
        if isinstance(entry, SynthRoomsEntry)
        for number in range(entry.first_scene, entry.first_scene + entry.train.scenes + entry.val.scenes)
    }


def textures(shot: Shot) -> np.ndarray:
    """(30, 40) int64: the fine pattern that covers at least COVERED of a patch, -1 where there is none."""
    kind_of_shape = np.array([_index(shape.material.pattern) for shape in shot.room.shapes])
    kinds = np.where(shot.view.hits.shape >= 0, kind_of_shape[shot.view.hits.shape], NO_TEXTURE)
    height, width = kinds.shape
    patches = kinds.reshape(height // PATCH, PATCH, width // PATCH, PATCH).transpose(0, 2, 1, 3)
    shares = np.stack([(patches == kind).mean(axis=(2, 3)) for kind in range(len(FINE_KINDS))])
    return np.where(shares.max(axis=0) >= COVERED, shares.argmax(axis=0), NO_TEXTURE)


def _index(pattern: str) -> int:
    return FINE_KINDS.index(pattern) if pattern in FINE_KINDS else NO_TEXTURE


def _tasks(rooms: Rooms) -> list[FrameTask]:
    return [
        FrameTask(root=Path(), scene=scene, index=index, seed=rooms.seed, texture_share=TEXTURE_SHARE)
        for scene in rooms.numbers
        for index in range(rooms.frames)
    ]


def _picture(task: FrameTask) -> np.ndarray:
    return shoot(task).colour


def _labelled_picture(task: FrameTask) -> tuple[np.ndarray, np.ndarray]:
    shot = shoot(task)
    return shot.colour, textures(shot)
