"""Batches made ready for the model while the device still works on the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ditr.data.batch import Batch
from ditr.model.batch_norm import share_norms
from ditr.model.esam import EsamSingleView
from ditr.model.sparse import Voxels
from ditr.ranks import Ranks
from ditr.spec.models import Engine


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A batch on the device, with its 2D feature maps."""

    batch: Batch
    voxels: Voxels | None
    """None where the model makes them itself."""

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the model is called with."""
        return (self.batch,) if self.voxels is None else (self.batch, self.voxels)


class Prefetcher:
    """Copies batches to a device, computes their maps and makes their voxels.

    On a GPU all of it goes to a stream of its own: who asks for a batch right after it queued the work on the one
    before gets the next made beside that work. Memory of a batch is given back when the work on it is done, so at most
    two batches are there at once. On the CPU everything happens when it is asked for.

    Parameters
    ----------
    encode: gets each batch on the device and gives it its 2D feature maps if they are computed online.
    model: makes its voxels here, if its engine works on any stream, which MinkowskiEngine does not.
    """

    def __init__(self, device: torch.device, *, encode: Callable[[Batch], Batch], model: nn.Module) -> None:
        self._device = device
        self._encode = encode
        self._voxelise: Callable[[Batch], Voxels] | None = None
        if isinstance(model, EsamSingleView) and model.engine == "triton":
            self._voxelise = model.voxelise
        self._stream = _stream_of_its_own(device)
        self._queued: torch.cuda.Event | None = None  # behind all work on the batch before the last
        self._given: deque[Ready] = deque()

    def ready(self, batch: Batch) -> Ready:
        """The batch, for what the current stream is given from now on."""
        if self._stream is None:
            return self._make(batch)
        current = torch.cuda.current_stream(self._device)
        # What the batch before the last gives back is used again on this stream: not before the work on it is done.
        if self._queued is None:
            self._stream.wait_stream(current)
        else:
            self._stream.wait_event(self._queued)
        self._queued = current.record_event()
        if len(self._given) == 2:
            self._given.popleft()
        with torch.cuda.stream(self._stream):
            self._given.append(self._make(batch))
        current.wait_stream(self._stream)
        return self._given[-1]

    def _make(self, batch: Batch) -> Ready:
        there = self._encode(batch.to(self._device))
        return Ready(batch=there, voxels=None if self._voxelise is None else self._voxelise(there))


def engine_of(model: nn.Module) -> Engine:
    """What computes its sparse convolutions."""
    return model.engine if isinstance(model, EsamSingleView) else "minkowski"


def share(model: nn.Module, ranks: Ranks) -> None:
    """From now on what a training pass makes of a whole batch it makes of the parts of all ranks."""
    if isinstance(model, EsamSingleView):
        model.share(ranks)
    else:
        share_norms(model, ranks=ranks)


def replaying(model: nn.Module) -> AbstractContextManager[None]:
    """While entered, what can be captured of a training pass is (``EsamSingleView.replaying``)."""
    return model.replaying() if isinstance(model, EsamSingleView) else nullcontext()


def _stream_of_its_own(device: torch.device) -> torch.cuda.Stream | None:
    """A GPU's, which goes first: what it is given is little, and the host waits for the sizes of voxel sets."""
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
