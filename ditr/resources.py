"""How much memory work takes, at its peak: on a GPU all that this process holds there, else its resident memory.

Torch's own counter misses what the sparse library allocates beside it, and its maps live only while a step does; so the
device is asked while the model runs, and torch for its peak (docs/reference/esam.md, Memory outside torch).
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

MIB = 2**20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
RESIDENT = "resident memory of the process"
RESIDENT_EVER = "resident memory of the process since it began"
GPU_OWN = "this process on the GPU"
GPU_ALL = "all processes on the GPU"


class MemoryMeter(Protocol):
    """Measures one stretch of work after another."""

    of: str
    """Whose memory the numbers are, in words."""

    def begin(self) -> None:
        """A stretch of work begins: what came before does not count."""

    def look(self) -> None:
        """Called when much is allocated, such as after a part of the model ran."""

    def peak_mb(self) -> float:
        """Most MiB in use since ``begin``, what was there before included."""


class Gpu(Protocol):
    """What a meter asks of a GPU; MiB."""

    def used_mb(self) -> float:
        """By everything, now."""

    def own_mb(self) -> float | None:
        """By this process, now; None where the driver does not tell."""

    def reserved_mb(self) -> float:
        """By torch, now."""

    def peak_reserved_mb(self) -> float:
        """By torch at most, since ``forget_peak``."""

    def forget_peak(self) -> None: ...


def memory_meter(device: torch.device) -> MemoryMeter:
    """The meter for work on ``device``; processes that read data are not counted."""
    return GpuMeter(TorchGpu(device)) if device.type == "cuda" else ResidentMeter()


@contextmanager
def watching(meter: MemoryMeter, model: torch.nn.Module, *, every_s: float = 0.0) -> Iterator[None]:
    """Looks at the memory when a part of ``model`` has run: then its maps and its output are alive.

    Not again before ``every_s`` have passed: a look asks the driver, and the device waits for the host meanwhile.
    """
    looked = -every_s

    def look(*_: object) -> None:
        nonlocal looked
        if (now := time.monotonic()) - looked >= every_s:
            looked = now
            meter.look()

    hooks = [part.register_forward_hook(look) for part in model.children()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def keep_freed_memory() -> None:
    """Makes this process keep what it frees for what it asks for next, where its C library is glibc.

    glibc gives arrays of more than 128 KiB back to the kernel, which then hands out cleared pages one by one: a third
    of the time of reading a frame.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * MIB)  # the most that it takes
        libc.mallopt(_M_TRIM_THRESHOLD, 1024 * MIB)


def give_back_freed_memory() -> None:
    """Gives the kernel every page that holds nothing in use, where the C library is glibc; takes some milliseconds.

    MinkowskiEngine leaves a small block behind for every coordinate map (docs/reference/esam.md, Memory outside torch).
    They lie scattered between what a step frees, and keep it from being used again as one piece: ten times their own
    size of free pages a step.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def resident_mb() -> float:
    """MiB of this process that lie in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


class GpuMeter:
    """Torch's peak, and the most that was in use beside torch at any look.

    Only what is this process's counts, as far as the driver tells it. Where it does not (a container without the host's
    process ids), everything in use on the GPU counts, and ``of`` says so.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.begin()

    def begin(self) -> None:
        self.of = GPU_OWN
        self._beside = 0.0
        self._gpu.forget_peak()
        self.look()

    def look(self) -> None:
        in_use = self._gpu.own_mb()
        if in_use is None:
            in_use, self.of = self._gpu.used_mb(), GPU_ALL
        self._beside = max(self._beside, in_use - self._gpu.reserved_mb())

    def peak_mb(self) -> float:
        self.look()
        return self._beside + self._gpu.peak_reserved_mb()


class ResidentMeter:
    """The kernel's high-water mark of this process, set back to what is in use when a stretch begins."""

    def __init__(self) -> None:
        self.of = RESIDENT
        self.begin()

    def begin(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not every kernel allows it; ``of`` says what the number is then
            self.of = RESIDENT_EVER

    def look(self) -> None:
        """The kernel misses nothing."""

    def peak_mb(self) -> float:
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024


class TorchGpu:
    """A GPU that torch and MinkowskiEngine use."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def used_mb(self) -> float:
        import torch

        free, total = torch.cuda.mem_get_info(self._device)
        return (total - free) / MIB

    def own_mb(self) -> float | None:
        import pynvml  # type: ignore[import-untyped]

        if self._handle is None:
            return None
        try:
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except pynvml.NVMLError:  # a slice of a GPU, for one
            return None
        own = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        return None if not own or None in own else sum(own) / MIB

    @cached_property
    def _handle(self) -> Any:
        """The driver's, kept open: it is asked in every step. None without a driver."""
        import pynvml
        import torch

        uuid = str(torch.cuda.get_device_properties(self._device).uuid)
        try:
            pynvml.nvmlInit()
            return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError:
            return None

    def reserved_mb(self) -> float:
        import torch

        return torch.cuda.memory_reserved(self._device) / MIB

    def peak_reserved_mb(self) -> float:
        import torch

        return torch.cuda.max_memory_reserved(self._device) / MIB

    def forget_peak(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)
