"""The device that a benchmark is told to measure on."""

from __future__ import annotations

import argparse

import torch


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``: a GPU where there is one, unless told."""
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device_here, default=here, help="cuda where there is one, or cpu")


def device_here(text: str) -> torch.device:
    """The device of that name.

    Raises
    ------
    ArgumentTypeError: torch knows no such device, or does not see it.
    """
    try:
        device = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text} is no device, such as cuda or cpu") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("torch sees no CUDA device; `ditr doctor` says what is there")
    return device
