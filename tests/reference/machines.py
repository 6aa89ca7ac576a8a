"""Machines that this one is not: torch sees another GPU or none, and what the engines need is there or not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ditr.model.sparse import choice

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """Pretends; MinkowskiEngine has CUDA with ``minkowski_cuda``, and ``compilers`` are the programs on PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()

    def has(
        *,
        gpu: bool,
        capability: tuple[int, int] = (9, 0),
        minkowski_cuda: bool = False,
        triton: bool = True,
        compilers: tuple[str, ...] = ("gcc",),
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA Example")
        monkeypatch.setattr(choice, "minkowski_has_cuda", lambda: minkowski_cuda)
        if not triton:
            monkeypatch.setattr(choice, "find_spec", lambda name: None if name == "triton" else True)
        for name in ("gcc", "clang"):
            (tools / name).unlink(missing_ok=True)
        for name in compilers:
            write_tool(tools / name, "")
        monkeypatch.setenv("PATH", f"{tools}:{Path(sys.executable).parent}")
        monkeypatch.delenv("CC", raising=False)

    return has


def nvidia_smi(folder: Path, *, driver: str = "580.95.05", cuda: str = "CUDA Version: 13.0") -> None:
    """As the tool of a driver prints, put into ``folder``."""
    listing = "GPU 0: NVIDIA Example 24GB (UUID: GPU-1234)\nGPU 1: NVIDIA Other (UUID: GPU-5678)"
    head = f"| NVIDIA-SMI {driver}   Driver Version: {driver}   {cuda}     |"
    folder.mkdir(exist_ok=True)
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nif [ \"$1\" = -L ]; then echo '{listing}'; else echo '{head}'; fi\n")
    tool.chmod(0o755)


def write_tool(path: Path, says: str, *, code: int = 0) -> None:
    """A program that says it and ends."""
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit {code}\n")
    path.chmod(0o755)
