"""Makes this checkout ready: a virtual environment with torch, MinkowskiEngine, the locked dependencies and ditr.

    make setup                      (or: python3 tools/setup.py)
    TORCH=torch==2.12.1 make setup  for another torch

Does nothing when nothing has changed since it last succeeded; a driver or a CUDA toolkit that has come since is a
change, one that is not there (a cluster's login node) is none. Each step prints what it does and, once it is done, how
long it took; what its programs print goes to build/setup.log, whose end is shown when one fails. Needs the standard
library only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minkowski import build, install
from minkowski.system_packages import how_to_install

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for ditr's modules that are imported where this is a Python that can read them
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = ROOT / "build" / "setup.log"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "ditr-setup.sha256"
TORCH = "torch==2.13.0"
TORCHVISION = "torchvision==0.28.0"
TRITON = "triton==3.7.1"
"""That of this torch, whose builds with CUDA bring it; others need it for tests, which interpret its kernels."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BUILD_TOOLS = ("pip==26.3", "setuptools==80.9.0", "wheel==0.48.0", "ninja==1.13.2")


class SetupError(Exception):
    """Set-up cannot go on; the message ends with what to do."""


def main() -> None:
    """Runs the steps that are needed; exit code 2 and one message when one of them cannot be done."""
    try:
        _check_machine()
        LOG.parent.mkdir(exist_ok=True)
        # A second `make` waits here and then finds everything done.
        with _locked(LOG.parent / "setup.lock"):
            if not _is_current():
                _set_up()
    except (SetupError, build.BuildError, OSError) as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        sys.exit(2)


def _set_up() -> None:
    started = time.monotonic()
    STAMP.unlink(missing_ok=True)
    LOG.write_text("")
    if not _has_usable_venv():
        _run(f"making .venv with Python {sys.version.split()[0]}", sys.executable, "-m", "venv", "--clear", str(VENV))
    _pip("installing pip and build tools", *BUILD_TOOLS)
    _install_torch()
    if not _succeeds("import triton"):
        _pip(f"installing {TRITON}, to interpret kernels without a GPU", TRITON)
    _install_minkowski_engine()
    _pip("installing the locked dependencies", "-r", str(LOCK), "-c", str(_torch_constraints()))
    _pip("installing ditr, editable", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    _run("checking that the packages fit together", str(PYTHON), "-m", "pip", "check")
    verdict = _run("trying one sparse convolution", str(PYTHON), str(ROOT / "tools" / "minkowski" / "smoke.py"))
    print(f"  {verdict.strip().splitlines()[-1]}")
    STAMP.write_text(json.dumps({"inputs": _fingerprint()} | _machine()))
    print(f"set up in {time.monotonic() - started:.0f} s; next: .venv/bin/ditr doctor", flush=True)
    _warn_of_hidden_gpu()  # last, where it is seen


def _check_machine() -> None:
    """What cannot be installed without root must be there: it is named with the command that installs it."""
    if sys.version_info < (3, 11):  # noqa: UP036  # an older Python does run this file
        version = sys.version.split()[0]
        raise SetupError(f"Python 3.11 or newer is needed, this is {version}\n  fix: make setup PYTHON=python3.11")
    from ditr.platforms import unsupported, untried

    if what := unsupported():
        raise SetupError(what)
    if what := untried():
        print(f"BEWARE: {what}", file=sys.stderr)
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        fix = how_to_install("venv", python=f"python3.{sys.version_info[1]}")
        raise SetupError(f"Python's venv module is incomplete\n  fix: {fix}")
    build.check_compiler(sysconfig.get_paths()["include"])


def _has_usable_venv() -> bool:
    """True for a virtual environment of this same Python version that has pip."""
    return _succeeds(f"import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})")


def _succeeds(code: str) -> bool:
    """In the virtual environment; False without one."""
    return PYTHON.exists() and subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode == 0


def _install_torch() -> None:
    """The torch that the variable TORCH names, else the pinned one: with CUDA where there is a GPU, else for the CPU.

    torchvision goes into the same command: alone, pip would take its newest release and another torch with it.
    """
    from ditr.driver import find_driver

    chosen = os.environ.get("TORCH", "").strip()
    if chosen:
        _pip(f"installing {chosen}, as TORCH says", chosen, "torchvision", "-c", str(LOCK))
    elif driver := find_driver():
        if _succeeds("import torch, sys; sys.exit(torch.version.cuda is not None)"):
            # For pip, a build for the CPU is the version that is asked for.
            _run("removing the torch for the CPU", str(PYTHON), "-m", "pip", "uninstall", "--yes", "torch")
        _pip(f"installing {TORCH} for {driver.gpu}", TORCH, TORCHVISION, "-c", str(LOCK))
    else:
        _install_cpu_torch()


def _install_cpu_torch() -> None:
    """The build for the CPU from where pip is told to look, else from PyTorch's own index, else the build with CUDA.

    That a build is not there, each installer says in its own words, so whatever fails, the next place is asked: what
    is wrong with the machine or its network fails in the last one too, whose error is told.
    """
    build, locked = f"{TORCH}+cpu", ("-c", str(LOCK))
    if _pip_can(f"installing {build} (no NVIDIA GPU here)", build, TORCHVISION, *locked):
        return
    # These two alone: an installer that stops at the first index with a package would take old ones of others there.
    if _pip_can("looking in PyTorch's index of CPU builds", "--no-deps", "--index-url", CPU_INDEX, build, TORCHVISION):
        _pip("installing what torch needs", build, TORCHVISION, *locked)
        return
    print(
        f"  no build for the CPU was found ({LOG.relative_to(ROOT)} says why): taking the one with CUDA, which runs on"
        " CPUs too but is several GB larger"
    )
    _pip(f"installing {TORCH}", TORCH, TORCHVISION, *locked)


def _pip_can(what: str, *arguments: str) -> bool:
    try:
        _pip(what, *arguments)
    except SetupError:
        return False
    return True


def _install_minkowski_engine() -> None:
    """From the machine's wheel cache; a wheel that is not there yet is built first, which takes minutes, once."""
    target = build.detect(str(PYTHON))
    wheel = install.kept_wheel(target, building=_timed)
    _pip(f"installing {target.key}", "--no-deps", "--force-reinstall", str(wheel))


def _torch_constraints() -> Path:
    """A constraints file that keeps pip from replacing the torch that is installed."""
    names = ("torch", "torchvision")
    code = f"from importlib.metadata import version; [print(f'{{n}}=={{version(n)}}') for n in {names}]"
    path = LOG.parent / "torch-constraints.txt"
    path.write_text(subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout)
    return path


def _warn_of_hidden_gpu() -> None:
    """Says loudly that torch does not see a GPU which is there, as with an old driver."""
    from ditr.driver import find_driver, hidden_gpu

    code = "import json, torch; print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.is_available()]))"
    done = subprocess.run([PYTHON, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    torch, torch_cuda, sees_gpu = json.loads(done.stdout)
    if not sees_gpu and (hidden := hidden_gpu(find_driver(), torch=torch, torch_cuda=torch_cuda)):
        print(f"BEWARE: runs will use the CPU, many times slower: {hidden.what}\n  fix: {hidden.fix}", file=sys.stderr)


def _is_current() -> bool:
    """What the machine has not, or has no more, was no reason to set up anything."""
    try:
        done = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    wanted = {"inputs": _fingerprint()} | {name: found for name, found in _machine().items() if found}
    return PYTHON.exists() and isinstance(done, dict) and wanted.items() <= done.items()


def _machine() -> dict[str, str]:
    """What decides which torch and which MinkowskiEngine are installed; empty where it is not there."""
    from ditr.driver import find_driver

    driver = find_driver()
    return {"driver": str(driver) if driver else "", "cuda": build.cuda_release()}


def _fingerprint() -> str:
    """Changes with anything that set-up reads."""
    digest = hashlib.sha256(repr((str(ROOT), sys.version_info[:2], os.environ.get("TORCH", ""))).encode())
    tools = [path for path in (ROOT / "tools" / "minkowski").rglob("*") if path.suffix in {".py", ".h"}]
    for path in sorted([LOCK, ROOT / "pyproject.toml", Path(__file__).resolve(), *tools]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _pip(what: str, *arguments: str) -> None:
    _run(what, str(PYTHON), "-m", "pip", "install", "--no-input", "--root-user-action=ignore", *arguments)


def _run(what: str, *command: str) -> str:
    """Runs one step's command and returns what it printed; SetupError, with the end of that, when it fails."""
    with _timed(what), LOG.open("a") as log:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        log.write(f"== {what}\n$ {' '.join(command)}\n{done.stdout}\n")
        if done.returncode != 0:
            tail = "\n".join(done.stdout.splitlines()[-25:])
            raise SetupError(f"{what}\n{tail}\n  fix: the whole output is in {LOG.relative_to(ROOT)}")
    return done.stdout


@contextmanager
def _timed(what: str) -> Iterator[None]:
    """Prints what begins, then how long it took: nothing is called done that was not."""
    print(f"{what} ... ", end="", flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - started:.0f} s", flush=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock between processes on this machine for as long as the block runs."""
    import fcntl  # which Windows has not got

    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main()
