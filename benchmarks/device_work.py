"""What a GPU did in some steps, and what the host asked of it, as torch's profiler sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

_LARGEST = 12
"""Kernels that are named."""


@dataclass(frozen=True, kw_only=True)
class DeviceWork:
    """Of one step, the mean over those that were profiled."""

    device_ms: float
    """Sum over all kernels and copies."""
    occupied_ms: float
    """In which at least one of them was under way; streams may work beside each other."""
    kernels: float
    """With copies; those of a graph each by itself."""
    launches: float
    """Of kernels and of graphs, by the host."""
    waits: float
    """In which the host waited for the device."""
    largest: tuple[tuple[str, float, float], ...]
    """Name, milliseconds and number of the kernels that took longest together."""


def device_work(step: Callable[[int], object], *, steps: int = 2) -> DeviceWork:
    """``step`` is called with the numbers from 0 on."""
    own = _profiled(step, steps=0)
    events = _profiled(step, steps=steps)
    on_device = [event for event in events if event.device_type == DeviceType.CUDA]
    work = [event for event in on_device if not event.is_user_annotation]
    calls = Counter(event.name for event in events if event.device_type != DeviceType.CUDA)
    return DeviceWork(
        device_ms=sum(event.device_time for event in work) / 1e3 / steps,
        occupied_ms=_union_us((event.time_range.start, event.time_range.end) for event in work) / 1e3 / steps,
        kernels=len(work) / steps,
        launches=sum(count for name, count in calls.items() if "Launch" in name) / steps,
        waits=(_waits(calls) - _waits(Counter(event.name for event in own))) / steps,
        largest=_largest(work, steps=steps),
    )


def _profiled(step: Callable[[int], object], *, steps: int) -> list[FunctionEvent]:
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for number in range(steps):
            step(number)
        torch.cuda.synchronize()
    return list(profiler.events() or ())


def _waits(calls: Counter[str]) -> int:
    return sum(count for name, count in calls.items() if name.startswith("cuda") and name.endswith("Synchronize"))


def _union_us(spans: Iterable[tuple[float, float]]) -> float:
    covered, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


def _largest(work: list[FunctionEvent], *, steps: int) -> tuple[tuple[str, float, float], ...]:
    took, count = Counter[str](), Counter[str]()
    for event in work:
        took[event.name] += event.device_time / 1e3 / steps
        count[event.name] += 1
    return tuple((name[:90], ms, count[name] / steps) for name, ms in took.most_common(_LARGEST))
