"""Where things live: a variable of the environment decides, else the project (``ditr.project``), else this user's
folders for data and caches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from ditr.errors import Code, DitrError
from ditr.project import PROJECT_FILE, Project, find_project


def project_dir() -> Path:
    """The folder of the project that the working directory is in; without one the working directory."""
    project = find_project()
    return Path.cwd() if project is None else project.folder


def builtin_dir() -> Path:
    """``registry/`` and ``specs/`` that come with ditr."""
    return Path(__file__).parent / "builtin"


def registry_dirs() -> tuple[Path, ...]:
    """Folders of named, pinned things that specs refer to, an earlier one before a later one: the project's
    ``registry/`` (``DITR_REGISTRY``), then the built-in one."""
    return (_from_env("DITR_REGISTRY") or project_dir() / "registry", builtin_dir() / "registry")


def runs_dir() -> Path:
    """Run folders, ``mlflow.db`` and ``results.duckdb`` (``DITR_RUNS``)."""
    return _from_env("DITR_RUNS") or _of_project("runs")


def data_dir() -> Path:
    """Prepared data sets the user brings (``DITR_DATA``)."""
    return _from_env("DITR_DATA") or _of_project("data")


def weights_dir() -> Path:
    """Weight files the user brings: DINOv2, Mask3D, ESAM (``DITR_WEIGHTS``)."""
    return _from_env("DITR_WEIGHTS") or _of_project("weights")


def cache_dir() -> Path:
    """What ditr makes and can make again: embedded data, feature maps (``DITR_CACHE``, default ``~/.cache/ditr``)."""
    if own := _from_env("DITR_CACHE"):
        return own
    project = find_project()
    if project is not None and project.folders.cache is not None:
        return _in_project(project, project.folders.cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ditr"


def _of_project(name: Literal["runs", "data", "weights"]) -> Path:
    """The project's folder of this name, or the user's where there is no project."""
    project = find_project()
    if project is None:
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "ditr" / name
    return _in_project(project, getattr(project.folders, name))


def _in_project(project: Project, folder: Path) -> Path:
    return (project.folder / _at_home(folder, where=str(project.folder / PROJECT_FILE))).resolve()


def _from_env(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return _at_home(Path(value), where=variable).resolve() if value else None


def _at_home(folder: Path, *, where: str) -> Path:
    """With ``~`` as the home that it means."""
    try:
        return folder.expanduser()
    except RuntimeError:
        what = f"{folder}: there is no such user, or no home is known"
        raise DitrError(what, code=Code.ENVIRONMENT, where=where, fix="write the whole path") from None
