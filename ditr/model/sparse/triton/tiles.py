"""How large the tiles of a product are: a table made once for a card, and a safe choice for all others.

A tile decides in which order a sum runs, so nothing is tried out while an experiment runs: the same card gives the same
bits every time. ``python -m benchmarks.tiles`` makes the table of the card that it runs on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import torch

from ditr.model.sparse.triton.launch import INTERPRETED

STEM_ROWS, STEM_TAPS = 64, 16

PROGRAMS = 4 if INTERPRETED else 528
"""That a sum over rows is spread over, whatever the card and however many rows: the order of the sum hangs on it."""


@dataclass(frozen=True, kw_only=True)
class GatherTile:
    """Of a gathered product: rows and channels that come out, channels in at a time."""

    rows: int
    columns: int
    reduction: int
    warps: int
    stages: int


@dataclass(frozen=True, kw_only=True)
class GradientTile:
    """Of a weight's gradient."""

    pairs: int
    channels_in: int
    channels_out: int
    warps: int
    stages: int


@cache
def gather_tile(
    offsets: int, channels_in: int, channels_out: int, *, dtype: torch.dtype, device: torch.device
) -> GatherTile:
    found = _frozen(device).get(name_of("gather", offsets, channels_in, channels_out, dtype=dtype))
    return safe_gather_tile(channels_in, channels_out, dtype=dtype) if found is None else GatherTile(**found)


@cache
def gradient_tile(
    offsets: int, channels_in: int, channels_out: int, *, dtype: torch.dtype, device: torch.device
) -> GradientTile:
    found = _frozen(device).get(name_of("gradient", offsets, channels_in, channels_out, dtype=dtype))
    return safe_gradient_tile(channels_in, channels_out, dtype=dtype) if found is None else GradientTile(**found)


def safe_gather_tile(channels_in: int, channels_out: int, *, dtype: torch.dtype) -> GatherTile:
    """Fits the shared memory of every card since Ampere (99 KiB a block)."""
    half = dtype != torch.float32
    return GatherTile(
        rows=64,
        columns=min(width_of(channels_out), 128 if half else 64),
        reduction=64 if half and channels_in >= 64 else 32,
        warps=4,
        stages=4 if half else 3,
    )


def safe_gradient_tile(channels_in: int, channels_out: int, *, dtype: torch.dtype) -> GradientTile:
    half = dtype != torch.float32
    return GradientTile(
        pairs=64 if half else 32,
        channels_in=min(width_of(channels_in), 64),
        channels_out=min(width_of(channels_out), 64),
        warps=4,
        stages=4 if half else 3,
    )


def precision_of(dtype: torch.dtype) -> str:
    """Of Triton's products: float32 as three products of tf32, whose error is float32's."""
    return "tf32x3" if dtype == torch.float32 else "ieee"


def width_of(channels: int) -> int:
    """Channels of a block, of which a product takes at least 16 and always a power of two."""
    return max(16, 1 << (channels - 1).bit_length())


def name_of(kind: str, offsets: int, channels_in: int, channels_out: int, *, dtype: torch.dtype) -> str:
    """Of a line of the table; the two halves take the same."""
    return f"{kind} {offsets} x {channels_in} x {channels_out} {'float32' if dtype == torch.float32 else 'half'}"


@cache
def _frozen(device: torch.device) -> dict[str, Any]:
    """The table of the card; empty for one that it was not made for."""
    if device.type != "cuda":
        return {}
    major, minor = torch.cuda.get_device_capability(device)
    table = json.loads(resources.files(__package__).joinpath("tiles.json").read_text())
    found: dict[str, Any] = table.get(f"sm_{major}{minor}", {})
    return found
