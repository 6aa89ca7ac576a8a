"""Networks of the user's: a class that gives maps of images (docs/your_source.md), and what it may get wrong."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ditr import plugins
from ditr.errors import Code, DitrError
from ditr.spec.entries import PythonEntry

_FIX = "mend the class; `ditr init --source NAME` writes one that works, and docs/your_source.md says what it has to do"


def make_encoder(entry: PythonEntry, *, weights: Path | None) -> nn.Module:
    """What the entry's class makes of its weight file, or of nothing.

    Raises
    ------
    DitrError: there is no such class, it fails, or what it makes is no torch module.
    """
    make = plugins.load(entry.module, where="module of the entry under registry/features")
    try:
        encoder = make() if weights is None else make(weights)
    except Exception as error:  # whatever a user's code raises
        called = "without an argument" if weights is None else f"with {weights}"
        raise _failed(error, entry, f"cannot be made {called}") from error
    if not isinstance(encoder, nn.Module):
        raise _wrong(entry, f"makes a {type(encoder).__name__}, not a torch.nn.Module")
    return encoder


def encode(encoder: nn.Module, pixels: Tensor, *, entry: PythonEntry) -> Tensor:
    """Maps (B, C, h / patch, w / patch) of pixels (B, 3, h, w), on their device.

    Raises
    ------
    DitrError: the class fails, or gives anything else.
    """
    try:
        maps = encoder(pixels)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's code raises
        raise _failed(error, entry, f"fails on images of {tuple(pixels.shape)} {pixels.dtype}") from error
    images, _, height, width = pixels.shape
    wanted = (images, entry.channels, height // entry.patch, width // entry.patch)
    if not isinstance(maps, Tensor):
        raise _wrong(entry, f"gives a {type(maps).__name__}, not a tensor of maps")
    if tuple(maps.shape) != wanted:
        of_entry = f"channels: {entry.channels} and patch: {entry.patch} of its registry entry"
        raise _wrong(entry, f"gives maps of {tuple(maps.shape)}, not {wanted} as {of_entry} say")
    if not maps.is_floating_point():
        raise _wrong(entry, f"gives maps of {maps.dtype}, not of floats")
    if maps.device != pixels.device:
        raise _wrong(entry, f"gives maps on {maps.device} of images on {pixels.device}")
    return maps


def _failed(error: Exception, entry: PythonEntry, what: str) -> DitrError:
    return _wrong(entry, f"{what}: {plugins.failure(error)}")


def _wrong(entry: PythonEntry, what: str) -> DitrError:
    return DitrError(f"the class {what}", code=Code.FEATURES, where=entry.module, fix=_FIX)
