"""Which engine computes the sparse convolutions on a device, and why one cannot."""

from __future__ import annotations

import os
import shutil
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from ditr.errors import Code, DitrError
from ditr.spec.models import Engine

OLDEST_CAPABILITY = (8, 0)
"""Of a GPU: the kernels multiply in tf32 and bfloat16."""
_ON_THE_CPU = (
    "compute on the CPU, many times slower: execution.device=cpu in the spec, or CUDA_VISIBLE_DEVICES= before the"
    " command to hide the GPU"
)


@dataclass(frozen=True, kw_only=True)
class Lack:
    """Why an engine cannot run."""

    what: str
    """Part of a sentence."""
    fix: str
    """A sentence without its point."""


def choose_engine(wanted: Literal["auto", "minkowski", "triton"], *, device: torch.device) -> Engine:
    """auto is triton where that can run, which is on GPUs only, and else minkowski.

    Raises
    ------
    DitrError: what is wanted cannot run on the device; of auto, neither can.
    """
    if wanted != "auto":
        if lack := engine_lack(wanted, device=device):
            fix = f"{lack.fix}; or set execution.engine to auto."
            raise _refused(f"the engine {wanted} cannot run here: {lack.what}", fix=fix)
        return wanted
    no_triton = engine_lack("triton", device=device)
    if no_triton is None:
        return "triton"
    no_minkowski = engine_lack("minkowski", device=device)
    if no_minkowski is None:
        return "minkowski"
    if device.type == "cpu":
        raise _refused(no_minkowski.what, fix=f"{no_minkowski.fix}.")
    what = f"torch sees a GPU that no engine can use: {no_triton.what}, and {no_minkowski.what}"
    raise _refused(what, fix=f"{no_triton.fix}; or {_lower(no_minkowski.fix)}; or {_ON_THE_CPU}.")


def engine_lack(engine: Engine, *, device: torch.device) -> Lack | None:
    """Why the engine cannot run on the device; None if it can."""
    return _triton_lack(device) if engine == "triton" else _minkowski_lack(device)


def _triton_lack(device: torch.device) -> Lack | None:
    if device.type != "cuda":
        return Lack(what="its kernels run on GPUs alone and the device is the CPU", fix="Run it on a GPU")
    if find_spec("triton") is None:
        return Lack(what="Triton is not installed", fix="Run `make setup`, or install the triton of your torch")
    if (capability := torch.cuda.get_device_capability(device)) < OLDEST_CAPABILITY:
        has, needs = (".".join(map(str, numbers)) for numbers in (capability, OLDEST_CAPABILITY))
        what = f"{torch.cuda.get_device_name(device)} has compute capability {has} and Triton's kernels need {needs}"
        return Lack(what=what, fix="Use a newer GPU")
    return _compiler_lack()


def _minkowski_lack(device: torch.device) -> Lack | None:
    if find_spec("MinkowskiEngineBackend") is None:
        return Lack(what="MinkowskiEngine is not installed", fix="Run `make setup`")
    if device.type == "cuda" and not minkowski_has_cuda():
        return Lack(
            what="MinkowskiEngine was built without CUDA", fix="Build MinkowskiEngine with CUDA as `ditr doctor` says"
        )
    return None


def minkowski_has_cuda() -> bool:
    """Whether the installed build of MinkowskiEngine can run on a GPU."""
    from MinkowskiEngineBackend import _C  # type: ignore[import-untyped]

    return bool(_C.is_cuda_available())


def _compiler_lack() -> Lack | None:
    """What Triton needs to compile what starts its kernels (docs/reference/cuda.md, Triton's launcher)."""
    named = os.environ.get("CC")
    if named is not None and shutil.which(named) is None:
        what = f"CC names {named!r}, which is no program, and Triton compiles what starts its kernels with it"
        return Lack(what=what, fix="Set CC to a C compiler, or unset it")
    if named is None and not (shutil.which("gcc") or shutil.which("clang")):
        what = "there is no C compiler, and Triton compiles what starts its kernels"
        return Lack(what=what, fix="Install gcc, or set CC to a C compiler")
    headers = _header_folder()
    if not (headers / "Python.h").is_file():
        what = f"there is no Python.h in {headers}, and Triton compiles what starts its kernels"
        return Lack(what=what, fix="Install Python's headers (python3-dev or python3-devel, of this Python)")
    return None


def _header_folder() -> Path:
    scheme = sysconfig.get_default_scheme()
    return Path(sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"])


def _refused(what: str, *, fix: str) -> DitrError:
    return DitrError(what, code=Code.ENVIRONMENT, where="execution.engine", fix=fix)


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
