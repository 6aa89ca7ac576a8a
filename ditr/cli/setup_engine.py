"""``ditr setup-engine``: MinkowskiEngine, which has no wheels, built for this Python and its torch."""

from __future__ import annotations

import subprocess
import sys

import typer

from ditr.paths import builtin_dir


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(setup_engine)


def setup_engine() -> None:
    """Build and install MinkowskiEngine: the engine on a CPU, and the reference beside Triton's kernels on a GPU.

    Takes minutes, once for a torch and a Python on this machine, and needs g++ and Python's headers. A GPU whose
    kernels Triton writes (compute capability 8.0 or more) runs without it.
    """
    script = builtin_dir() / "minkowski" / "install.py"
    raise typer.Exit(subprocess.run([sys.executable, str(script)], check=False).returncode)
