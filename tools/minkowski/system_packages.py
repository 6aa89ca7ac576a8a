"""What pip cannot install, and the commands that do, by whoever installs packages on this machine.

Needs nothing but the standard library.
"""

from __future__ import annotations

import os
import shutil
from typing import Literal

Need = Literal["compiler", "headers", "venv", "blas"]

_APT: dict[Need, str] = {
    "compiler": "g++",
    "headers": "{python}-dev",
    "venv": "{python}-venv",
    "blas": "libopenblas-dev",
}
_DNF: dict[Need, str] = {
    "compiler": "gcc-c++",
    "headers": "{python}-devel",
    "venv": "{python}",
    "blas": "openblas-devel",
}
_CONDA: dict[Need, str] = {"compiler": "gxx", "headers": "python", "venv": "python", "blas": "openblas"}
_MODULE: dict[Need, str] = {"compiler": "gcc", "headers": "python", "venv": "python", "blas": "openblas"}


def how_to_install(need: Need, *, python: str = "python3") -> str:
    """The command of each package manager that is here, those that need no root first where the user is not root.

    Parameters
    ----------
    python: whose headers or venv module are needed, as packages are named after it: ``python3.12``.
    """
    system = [
        f"{tool} install {packages[need].format(python=python)}"
        for tool, packages in (("apt-get", _APT), ("dnf", _DNF))
        if shutil.which(tool)
    ]
    own = [f"module load {_MODULE[need]}"] if os.environ.get("MODULESHOME") or os.environ.get("LMOD_CMD") else []
    if shutil.which("conda") or not system:
        own.append(f"conda install -c conda-forge {_CONDA[need]}")
    if os.geteuid() == 0:
        return ", or ".join(system or own)
    if own:
        return ", or ".join([*own, *(f"as root {command}" for command in system)])
    return f"as root {', or '.join(system)}; without root, conda (conda-forge.org) has {_CONDA[need]}"
