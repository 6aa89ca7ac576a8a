"""How a process becomes one of the ranks of a run: as torchrun's environment says, or alone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ditr.errors import Code, DitrError
from ditr.ranks import ALONE, Ranks

_LOOK_S = 1.0


def is_rank() -> bool:
    """Whether torchrun, or what ``ditr`` starts several ranks with, started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def join() -> Iterator[Ranks]:
    """While entered, this process is one of the ranks. Each has a GPU of its own, and sees no other.

    Raises
    ------
    DitrError: there are fewer GPUs than ranks of this machine.
    """
    if not is_rank():
        yield ALONE
        return
    _take_gpu(int(os.environ["LOCAL_RANK"]))
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    from ditr.model.rank_group import rank_group

    with rank_group() as ranks:
        yield ranks


def _take_gpu(local_rank: int) -> None:
    """Before anything asks CUDA."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    if named == "" or not visible:
        return
    if local_rank >= len(visible):
        what = f"this is rank {local_rank} of this machine, and there are {len(visible)} GPUs"
        fix = "Start as many ranks as there are GPUs; for the CPU hide them: CUDA_VISIBLE_DEVICES= before the command."
        raise DitrError(what, code=Code.ENVIRONMENT, where="torchrun --nproc-per-node", fix=fix)
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[local_rank]


def _end_with(launcher: int) -> None:
    """Ends this rank, wherever it waits, when the process is gone that started it and would have stopped it."""
    while os.getppid() == launcher:
        time.sleep(_LOOK_S)
    os._exit(1)
