"""Installs MinkowskiEngine into the environment of the Python that runs this file, built first if it has to be.

    python tools/minkowski/install.py        (or: ditr setup-engine)

Wheels are kept, one for each torch, Python and CUDA. Needs the standard library, pip and torch only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minkowski import build

SMOKE = Path(__file__).resolve().parent / "smoke.py"


def main() -> None:
    """Exit code 2 and one message when something is missing or fails."""
    try:
        target = build.detect(sys.executable)
        wheel = kept_wheel(target, building=_announced)
    except build.BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", str(wheel)]
    for command in (pip, [sys.executable, str(SMOKE)]):
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(code)


def kept_wheel(target: build.Target, *, building: Callable[[str], AbstractContextManager[None]]) -> Path:
    """From this machine's wheels; one that is not there yet is built first, inside ``building``.

    Raises
    ------
    BuildError: something that the build needs is missing, or it failed.
    """
    import fcntl  # which Windows has not got

    folder = _wheels() / target.key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wheel = next(folder.glob("*.whl"), None)
        if wheel is None:
            with building(f"building {target.key} (takes minutes, once a machine)"):
                wheel = build.build(target, out=folder, jobs=os.cpu_count())
        return wheel


def _wheels() -> Path:
    """Wheels built on this machine, shared by all environments (DITR_WHEELS, default ~/.cache/ditr/wheels)."""
    chosen = os.environ.get("DITR_WHEELS")
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen).expanduser().resolve() if chosen else Path(caches) / "ditr" / "wheels"


@contextmanager
def _announced(what: str) -> Iterator[None]:
    print(what, flush=True)
    yield


if __name__ == "__main__":
    main()
