"""What this machine has of what ditr needs, and what to do about each thing it lacks."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ditr import paths, plugins
from ditr.catalog import locate_checkpoint, locate_dataset, locate_weights
from ditr.driver import hidden_gpu_here
from ditr.errors import DitrError
from ditr.platforms import unsupported, untried
from ditr.project import find_project
from ditr.spec.entries import FolderEntry, GivenEntry, PrecomputedEntry, PretrainedWeights, PythonEntry
from ditr.spec.models import RegisteredCheckpoint, Spec
from ditr.spec.registry import Kind, Registry, entries_of

_OLDEST_PYTHON = (3, 11)
_LOW_DISK_GB = 5.0
_Check = Callable[[str, Registry], tuple["State", str, str]]
_SET_UP = "install ditr again, in a checkout with `make setup` (its log is build/setup.log)"


class State(StrEnum):
    """How a finding is to be read."""

    OK = "ok"
    ABSENT = "absent"
    """Not here, and only needed by specs that name it."""
    SLOW = "slow"
    """Works, but a GPU of this machine is not used."""
    PROBLEM = "problem"
    """No experiment can run until it is fixed."""


@dataclass(frozen=True, kw_only=True)
class DoctorLine:
    """One line of `ditr doctor`; ``fix`` is empty only when ``state`` is OK."""

    group: str
    name: str
    state: State
    found: str
    fix: str = ""


def examine(registry: Registry) -> tuple[DoctorLine, ...]:
    """Every check, in the order they are read; none of them raises, downloads, or makes a file."""
    return (*_project(registry), *_software(), *_stores(), *_registered(registry))


def lacks(spec: Spec, registry: Registry) -> Iterator[DoctorLine]:
    """What a spec names that is not on this machine: its data set, weights of its 2D source, its checkpoint."""
    for kind, name in entries_of(spec):
        if kind == "features" and spec.features is not None and spec.features.weights is not None:
            continue  # other weights than the entry names
        line = _line(_ONE_OF[kind], name, _CHECKS[kind][1], registry)
        if line.state is not State.OK:
            yield line


def _project(registry: Registry) -> Iterator[DoctorLine]:
    def line(name: str, found: str) -> DoctorLine:
        return DoctorLine(group="project", name=name, state=State.OK, found=found)

    project = find_project()
    if project is None:
        yield line("folder", "none: runs, data and weights lie in folders of your user; `ditr init` makes a project")
    else:
        yield line("folder", str(project.folder))
        for name, reference in project.fusion.items():
            yield line("fusion part", f"{name}, {reference}")
    for group in _CHECKS:
        for name in registry.names(group):
            if hidden := registry.hidden(group, name):
                yield line("registry", f"{registry.file(group, name)} stands in place of {hidden}")


def _software() -> Iterator[DoctorLine]:
    checks: tuple[tuple[str, Callable[[], tuple[State, str, str]]], ...] = (
        ("platform", _platform),
        ("Python", _python),
        ("torch", _torch),
        ("MinkowskiEngine", _minkowski_engine),
        ("Triton", _triton),
        ("timm", _timm),
        ("mlflow", lambda: (State.OK, metadata.version("mlflow"), "")),
        ("duckdb", lambda: (State.OK, metadata.version("duckdb"), "")),
    )
    for name, check in checks:
        try:
            state, found, fix = check()
        except (ImportError, OSError, RuntimeError, DitrError) as error:
            state, found, fix = State.PROBLEM, _first_line(error), _SET_UP
        yield DoctorLine(group="software", name=name, state=state, found=found, fix=fix)


def _platform() -> tuple[State, str, str]:
    found = f"{sys.platform} {platform.machine()}"
    if what := unsupported():
        return State.PROBLEM, found, what
    if what := untried():
        return State.OK, f"{found}: {what}", ""
    return State.OK, found, ""


def _python() -> tuple[State, str, str]:
    found = f"{sys.version.split()[0]}, {sys.executable}"
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return State.PROBLEM, found, "install Python 3.11 or newer, then `make setup PYTHON=python3.11`"
    return State.OK, found, ""


def _torch() -> tuple[State, str, str]:
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return State.OK, f"{torch.__version__} on {card.name}, {card.total_memory / 2**30:.0f} GiB", ""
    found = f"{torch.__version__} on the CPU, {os.cpu_count()} cores"
    if hidden := hidden_gpu_here():
        return State.SLOW, f"{found}: {hidden.what}", hidden.fix
    return State.OK, found, ""


def _minkowski_engine() -> tuple[State, str, str]:
    """The reference. On a GPU it is the engine only where a spec names it, or Triton cannot run there."""
    import torch

    from ditr.model.sparse.choice import engine_lack, minkowski_has_cuda

    triton_runs = torch.cuda.is_available() and engine_lack("triton", device=torch.device("cuda")) is None
    build = "build it here: ditr setup-engine"
    if find_spec("MinkowskiEngine") is None:
        if triton_runs:
            return (
                State.ABSENT,
                "not installed; on the GPU runs are computed with Triton",
                f"for runs on the CPU {build}",
            )
        return State.PROBLEM, "not installed, and without it the CPU has no engine", build
    version = metadata.version("MinkowskiEngine")
    if minkowski_has_cuda():
        return State.OK, f"{version} with CUDA", ""
    if not torch.cuda.is_available():
        return State.OK, f"{version} for the CPU", ""
    if triton_runs:
        return State.OK, f"{version} for the CPU; on the GPU runs are computed with Triton", ""
    found = f"{version} for the CPU only, and no other engine can use the GPU: runs are refused"
    fix = f"make Triton run, or install CUDA {torch.version.cuda} so that `nvcc` runs, then `make setup`"
    return State.PROBLEM, found, f"{fix}; or set execution.device=cpu in every spec"


def _triton() -> tuple[State, str, str]:
    import torch

    from ditr.model.sparse.choice import engine_lack

    version = metadata.version("triton") if find_spec("triton") else "not installed"
    if not torch.cuda.is_available():
        return State.OK, f"{version}; no GPU for its kernels", ""
    card = torch.cuda.get_device_name(0)
    if lack := engine_lack("triton", device=torch.device("cuda")):
        return State.SLOW, f"{version}, which cannot run on {card}: {lack.what}", lack.fix
    return State.OK, f"{version} on {card}", ""


def _timm() -> tuple[State, str, str]:
    from ditr.features.timm_models import import_timm

    import_timm()
    return State.OK, f"{metadata.version('timm')}, torchvision {metadata.version('torchvision')}", ""


def _stores() -> Iterator[DoctorLine]:
    stores = {
        "runs": (paths.runs_dir(), "DITR_RUNS"),
        "cache": (paths.cache_dir(), "DITR_CACHE"),
        "data": (paths.data_dir(), "DITR_DATA"),
        "weights": (paths.weights_dir(), "DITR_WEIGHTS"),
    }
    for name, (folder, variable) in stores.items():
        state, found, fix = _store(folder, variable=variable, written=name in {"runs", "cache"})
        yield DoctorLine(group="stores", name=name, state=state, found=found, fix=fix)


def _store(folder: Path, *, variable: str, written: bool) -> tuple[State, str, str]:
    """``written``: ditr makes the folder itself when it is first needed; the others are only read."""
    standing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_gb = shutil.disk_usage(standing).free / 1e9
    found = f"{folder}, {free_gb:.0f} GB free" + ("" if folder.exists() else ", not made yet")
    if not standing.is_dir() or (written and not os.access(standing, os.W_OK | os.X_OK)):
        return State.PROBLEM, f"{folder} cannot be written", f"set {variable} to a folder of yours"
    if written and free_gb < _LOW_DISK_GB:
        return State.PROBLEM, found, f"free {_LOW_DISK_GB:.0f} GB there, or set {variable} to a larger disk"
    return State.OK, found, ""


def _registered(registry: Registry) -> Iterator[DoctorLine]:
    """Which of the things that specs can name are on this machine."""
    for kind, (group, check) in _CHECKS.items():
        for name in registry.names(kind):
            yield _line(group, name, check, registry)


def _line(group: str, name: str, check: _Check, registry: Registry) -> DoctorLine:
    try:
        state, found, fix = check(name, registry)
    except DitrError as error:
        state, found, fix = State.ABSENT, error.what, error.fix
    return DoctorLine(group=group, name=name, state=state, found=found, fix=fix)


def _dataset(name: str, registry: Registry) -> tuple[State, str, str]:
    entry = registry.dataset(name)
    folder = locate_dataset(name, entry)
    if folder.is_dir():
        return State.OK, str(folder), ""
    if isinstance(entry, FolderEntry):
        return State.ABSENT, f"no folder {folder}", f"put the prepared data set there (DITR_DATA is {paths.data_dir()})"
    return State.OK, "made when a run first needs it", ""


def _weights(name: str, registry: Registry) -> tuple[State, str, str]:
    entry = registry.features(name)
    if isinstance(entry, GivenEntry):
        what = "maps" if isinstance(entry, PrecomputedEntry) else "features of points"
        return State.OK, f"{what} in {entry.path} of the data set, looked for when a run reads them", ""
    if isinstance(entry, PythonEntry) and not plugins.is_there(entry.module):
        fix = f"put it into {paths.project_dir()}, or install its package"
        return State.ABSENT, f"no module {entry.module.partition(':')[0]}", fix
    weights = entry.weights
    if not isinstance(weights, PretrainedWeights):
        return State.OK, "seeded, needs no download", ""
    file = locate_weights(weights)
    if file is not None:
        return State.OK, str(file), ""
    if isinstance(entry, PythonEntry):
        fix = f"put {weights.url or weights.file} into {paths.weights_dir()}, or beside the entry"
        return State.ABSENT, f"no {paths.weights_dir() / weights.file}", fix
    terms = f"accept {entry.licence_url}; " if entry.licence_url else ""
    fix = (
        f"{terms}timm downloads them when first needed; without a network put {weights.url} into {paths.weights_dir()}"
    )
    return State.ABSENT, f"no {paths.weights_dir() / weights.file}", fix


def _checkpoint(name: str, registry: Registry) -> tuple[State, str, str]:
    file = locate_checkpoint(RegisteredCheckpoint(kind="registry", name=name), registry=registry)
    return State.OK, f"{file.path}, sha256 {file.sha256[:12]}", ""


_CHECKS: dict[Kind, tuple[str, _Check]] = {
    "datasets": ("data sets", _dataset),
    "features": ("2D weights", _weights),
    "checkpoints": ("checkpoints", _checkpoint),
}

_ONE_OF: dict[Kind, str] = {"datasets": "data set", "features": "2D weights", "checkpoints": "checkpoint"}

OPTIONAL = tuple(group for group, _ in _CHECKS.values())
"""Groups of lines about what only specs that name it need."""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"
