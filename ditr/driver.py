"""The NVIDIA driver of this machine, and why torch does not see the GPU that the driver shows.

Imports the standard library only: tools/setup.py asks it about the torch that it installs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

OLDEST_DRIVERS = {11: "450", 12: "525", 13: "580"}
"""By the major version of CUDA; all its minor versions run on them (docs/reference/cuda.md, Drivers)."""
_NEEDS_NEWER_BUILD = (12, 8)
"""A card that came with it has no code in the build for 12.6 (docs/reference/cuda.md, Torch's builds)."""
_INDEX = "https://download.pytorch.org/whl"


@dataclass(frozen=True, kw_only=True)
class Driver:
    """As nvidia-smi tells it."""

    gpu: str
    """Name of the first GPU."""
    version: str
    """Such as 550.54.15; empty where it is not said."""
    cuda: tuple[int, int] | None
    """The newest CUDA that it runs; None where it is not said."""


@dataclass(frozen=True, kw_only=True)
class HiddenGpu:
    """That torch does not see a GPU which is there."""

    what: str
    fix: str


def find_driver() -> Driver | None:
    """None without a GPU, without a driver or where the driver cannot be asked."""
    listing = _ask("-L")
    first = re.search(r"^GPU \d+: (.*?)(?: \(|$)", listing, re.MULTILINE)
    if first is None:
        return None
    head = _ask()
    version = re.search(r"Driver Version: *([\d.]+)", head)
    cuda = re.search(r"CUDA (?:UMD )?Version: *(\d+)\.(\d+)", head)
    return Driver(
        gpu=first[1],
        version=version[1] if version else "",
        cuda=(int(cuda[1]), int(cuda[2])) if cuda else None,
    )


def hidden_gpu(driver: Driver | None, *, torch: str, torch_cuda: str | None) -> HiddenGpu | None:
    """Why a torch that sees no GPU does not, and what to do about it; None where no GPU is there, or the user hides it.

    Parameters
    ----------
    torch: its version, such as 2.13.0+cu130.
    torch_cuda: the CUDA it is built for, such as 13.0; None of a build for the CPU.
    """
    hides = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver is None or hides in ("", "-1"):
        return None
    other = _install(torch.partition("+")[0], driver)
    if torch_cuda is None:
        what = f"torch {torch} is a build for the CPU, though there is {driver.gpu}"
        return HiddenGpu(what=what, fix=other or _update(driver, needs=13))
    needs = int(torch_cuda.partition(".")[0])
    if driver.cuda is not None and driver.cuda[0] < needs:
        runs = ".".join(map(str, driver.cuda))
        what = (
            f"the driver {driver.version} of {driver.gpu} is too old for torch {torch}: it runs CUDA {runs} at most,"
            f" and this torch is built for CUDA {torch_cuda}"
        )
        fixes = (_update(driver, needs=needs), other and f"take the torch of an older CUDA: {other}")
        return HiddenGpu(what=what, fix="; or ".join(filter(None, fixes)))
    what = f"torch {torch} for CUDA {torch_cuda} sees no GPU, though the driver shows {driver.gpu}"
    fix = "`.venv/bin/python -c 'import torch; torch.cuda.init()'` says why"
    if hides is not None:
        fix = f"CUDA_VISIBLE_DEVICES is {hides}; {fix}"
    return HiddenGpu(what=what, fix=fix)


def hidden_gpu_here() -> HiddenGpu | None:
    """Of the installed torch; None where it sees a GPU."""
    import torch

    if torch.cuda.is_available():
        return None
    return hidden_gpu(find_driver(), torch=torch.__version__, torch_cuda=torch.version.cuda)


def _install(torch: str, driver: Driver) -> str:
    """The command for a torch of this version that the driver can run; empty where there is none."""
    if driver.cuda is None or driver.cuda[0] >= 13:
        return f"TORCH=torch=={torch} make setup"
    if driver.cuda[0] < 12:
        return ""
    build = "cu129" if driver.cuda >= _NEEDS_NEWER_BUILD else "cu126"
    return f"PIP_EXTRA_INDEX_URL={_INDEX}/{build} TORCH=torch=={torch}+{build} make setup"


def _update(driver: Driver, *, needs: int) -> str:
    return f"update the NVIDIA driver to {OLDEST_DRIVERS[needs]} or newer, which CUDA {needs} needs"


def _ask(*options: str) -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    done = subprocess.run(["nvidia-smi", *options], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""
