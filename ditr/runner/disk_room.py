"""Whether the disk takes what a training writes for certain: its weights and its states."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ditr.machine_errors import MachineError, free_bytes, size_of
from ditr.record.folder import Record

if TYPE_CHECKING:
    from torch import nn

_MOMENTS = 2
"""Numbers that AdamW keeps of each weight."""


def require_room(folder: Record, *, model: nn.Module) -> None:
    """A state is written beside the one that it replaces, and is larger than the weights, which come last.

    Raises
    ------
    MachineError: the disk of the folder has less room than that, with both numbers.
    """
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    state = weights + _MOMENTS * sum(weight.nbytes for weight in model.parameters())
    needed, free = 2 * state - size_of(folder.training_state), free_bytes(folder.path)
    if needed > free:
        what = f"there is no room: this training writes {needed:,} bytes of weights and states, and {free:,} are free"
        fix = "make room there, or let DITR_RUNS name a folder on a larger disk, and give the command again"
        raise MachineError(what, number=errno.ENOSPC, where=str(folder.path), fix=fix)
