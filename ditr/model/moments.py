"""When a device did what, without waiting for it."""

from __future__ import annotations

import time

import torch

Moment = float | torch.cuda.Event


def moment(device: torch.device) -> Moment:
    """Now; on a GPU, when all is done that its current stream has been given so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def ms_between(began: Moment, ended: Moment) -> float:
    """Milliseconds between two moments of one device that have both come; on a GPU it waits for the later one."""
    if isinstance(began, torch.cuda.Event) and isinstance(ended, torch.cuda.Event):
        ended.synchronize()
        return float(began.elapsed_time(ended))
    assert isinstance(began, float), "two moments of one device"
    assert isinstance(ended, float), "two moments of one device"
    return 1e3 * (ended - began)
