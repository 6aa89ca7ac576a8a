"""Maps to disk in threads, while the device computes the next ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType

import torch
from torch import Tensor

from ditr.errors import Code, DitrError
from ditr.features.store import FeatureStore

THREADS = 8
"""They wait for the disk most of the time."""
BATCHES = 4
"""Batches on their way from the device to the disk at most; whoever brings one more waits."""


class Writers:
    """Stores what it is given; use it as a context manager, which ends when every map that was begun is whole."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="ditr-maps")
        self._slots: SimpleQueue[_Slot] = SimpleQueue()
        for _ in range(BATCHES):
            self._slots.put(_Slot())
        self._changed = threading.Condition()
        self._written = 0
        self._failure: BaseException | None = None

    def __enter__(self) -> Writers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=self._failure is not None)

    @property
    def written(self) -> int:
        """Maps that are whole on disk. Raises what went wrong with the first that will not be."""
        with self._changed:
            return self._count()

    def put(self, frame_ids: Sequence[str], tokens: Tensor) -> None:
        """Stores tokens (B, C, Hp, Wp), on any device, as the maps of the frames, soon."""
        slot = self._slots.get()
        slot.fill(tokens, maps=len(frame_ids))
        for row, frame_id in enumerate(frame_ids):
            self._pool.submit(self._write, frame_id, slot, row)

    def wait(self, *, beyond: int) -> int:
        """Waits until more than so many maps are written, and returns how many are."""
        with self._changed:
            while self._count() <= beyond:
                self._changed.wait()
            return self._written

    def _count(self) -> int:
        if self._failure is not None:
            raise self._failure
        return self._written

    def _write(self, frame_id: str, slot: _Slot, row: int) -> None:
        failure: BaseException | None = None
        try:
            if self._failure is None:
                self._store.write(frame_id, slot.map(row))
        except OSError as error:
            failure = _unwritable(frame_id, self._store, error)
        except BaseException as error:
            error.add_note(f"while writing the 2D feature map of frame {frame_id}")
            failure = error
        if slot.done():
            self._slots.put(slot)
        with self._changed:
            self._written += failure is None
            self._failure = self._failure or failure
            self._changed.notify_all()


class _Slot:
    """One batch on its way; of a GPU's batch, memory that its copy engine can write to while it computes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = 0
        self._maps = torch.empty(0)
        self._pinned: Tensor | None = None
        self._stream: torch.cuda.Stream | None = None
        self._copied: torch.cuda.Event | None = None

    def fill(self, tokens: Tensor, *, maps: int) -> None:
        self._left = maps
        self._maps, self._copied = tokens, None
        if tokens.is_cuda:
            if self._pinned is None or self._pinned.shape[0] < len(tokens):
                self._pinned = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            self._maps = self._pinned[: len(tokens)]
            self._stream = self._stream or torch.cuda.Stream(tokens.device)  # type: ignore[no-untyped-call]
            self._copied = _copy_beside(tokens, self._maps, self._stream)

    def map(self, row: int) -> Tensor:
        """On the CPU; waits for the copy."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._maps[row]

    def done(self) -> bool:
        """Whether this was the last of the batch's maps."""
        with self._lock:
            self._left -= 1
            return self._left == 0


def _copy_beside(tokens: Tensor, pinned: Tensor, stream: torch.cuda.Stream) -> torch.cuda.Event:
    """Starts the copy in a stream of its own, so that the device goes on computing meanwhile."""
    stream.wait_stream(torch.cuda.current_stream(tokens.device))
    with torch.cuda.stream(stream):
        pinned.copy_(tokens, non_blocking=True)
        tokens.record_stream(stream)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(stream)
    return copied


def _unwritable(frame_id: str, store: FeatureStore, error: OSError) -> DitrError:
    return DitrError(
        f"the 2D feature map cannot be written ({error.strerror or error})",
        code=Code.ENVIRONMENT,
        where=f"frame {frame_id}: {store.path(frame_id)}",
        fix="make room there or let DITR_CACHE name another folder; the same command then goes on, what is made stays",
    )
