"""Resolves pyproject.toml's dependencies anew, in a clean environment, and pins them all in requirements.lock.

    make lock

torch, torchvision, Triton and MinkowskiEngine are left out: which build of them fits is the machine's matter, and
tools/setup.py's. So are the packages that come with a CUDA build of torch.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from setup import BUILD_TOOLS, LOCK, ROOT, TORCH, TORCHVISION

LEFT_OUT = re.compile(r"(torch|torchvision|triton|cuda-.*|nvidia-(?!ml-py).*|pip|setuptools|wheel|ninja)==")
HEADER = (
    "# Made by `make lock` from pyproject.toml; torch, torchvision, Triton and MinkowskiEngine come from"
    " tools/setup.py.\n"
)


def main() -> None:
    """Writes requirements.lock; a failure of pip ends with its own message."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [name for extra in project["project"]["optional-dependencies"].values() for name in extra]
    wanted = [*project["project"]["dependencies"], *extras, *project["dependency-groups"]["dev"]]
    with tempfile.TemporaryDirectory(prefix="ditr-lock-") as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(python), "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", *BUILD_TOOLS], check=True)
        if subprocess.run([*pip, "install", "--quiet", f"{TORCH}+cpu", TORCHVISION], check=False).returncode != 0:
            subprocess.run([*pip, "install", "--quiet", TORCH, TORCHVISION], check=True)
        subprocess.run([*pip, "install", "--quiet", TORCH, TORCHVISION, *wanted], check=True)
        frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    pins = [line for line in frozen.splitlines() if not LEFT_OUT.match(line.lower())]
    LOCK.write_text(HEADER + "\n".join(pins) + "\n")
    print(f"{LOCK.name}: {len(pins)} packages")


if __name__ == "__main__":
    main()
