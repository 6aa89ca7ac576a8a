"""Where things live: a variable of the environment decides, else the project (``ditr.project``), else this user's
folders for data and caches. And how what is handed on names them, without where this machine has them."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Literal

from ditr.errors import Code, DitrError
from ditr.project import PROJECT_FILE, Project, find_project

_MISREAD = re.compile(r"[?\\]|%[0-9A-Fa-f]{2}")
"""In a path that MLflow takes for part of an address, or DuckDB for one of another system."""


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
    """Run folders, ``mlflow.db`` and ``results.duckdb`` (``DITR_RUNS``).

    Raises
    ------
    DitrError: DuckDB and MLflow would not find their files there.
    """
    runs = _from_env("DITR_RUNS") or _of_project("runs")
    if wrong := _MISREAD.search(str(runs)):
        what = f"runs cannot be in a folder with {wrong[0]} in its path: DuckDB or MLflow would open another"
        fix = f"Let DITR_RUNS, or [folders] runs in {PROJECT_FILE}, name another folder, or rename this one."
        raise DitrError(what, code=Code.ENVIRONMENT, where=str(runs), fix=fix)
    return runs


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
    return Path(os.environ.get("XDG_CACHE_HOME") or _home(instead="DITR_CACHE") / ".cache") / "ditr"


def tracking_uri() -> str | None:
    """Address of the server of MLflow's that records are told to (``MLFLOW_TRACKING_URI``, or the project's); None for
    the file beside them."""
    project = find_project()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or (None if project is None else project.tracking.mlflow)
    return uri.rstrip("/") if uri else None


def portable_path(path: Path) -> str:
    """The path as records and reports name it: from the store, the project, ditr itself or the user's home that it lies
    in (``$DITR_DATA/scannet``, ``specs/mine.yaml``, ``ditr:registry/...``, ``~/...``), else by its last name alone."""
    shown = portable_text(os.path.abspath(path))
    return path.name if os.path.isabs(shown) else shown


def portable_text(text: str) -> str:
    """The text with every path in it that lies in a folder known to ditr as ``portable_path`` names it."""
    for folder, name in sorted(_roots().items(), key=lambda root: -len(root[0])):
        if len(Path(folder).parts) > 1:  # the root of everything says nothing
            text = re.sub(rf"(?<![\w.-]){re.escape(folder)}/", name, text)
            text = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", name.rstrip("/:") or ".", text)
    return text


def _roots() -> dict[str, str]:
    """Folders of this machine, also as they are without links, and what stands in place of each before a path."""
    package = Path(__file__).parent
    folders = {
        Path(sys.prefix): "$VIRTUAL_ENV/",
        package.parent: "",
        package: "ditr/",
        Path(tempfile.gettempdir()): "$TMPDIR/",
        Path(os.path.expanduser("~")): "~/",
        project_dir(): "",
        builtin_dir(): "ditr:",
        cache_dir(): "$DITR_CACHE/",
        weights_dir(): "$DITR_WEIGHTS/",
        data_dir(): "$DITR_DATA/",
        runs_dir(): "$DITR_RUNS/",
    }
    return {str(form): name for folder, name in folders.items() for form in (folder, folder.resolve())}


def _of_project(name: Literal["runs", "data", "weights"]) -> Path:
    """The project's folder of this name, or the user's where there is no project."""
    project = find_project()
    if project is None:
        home = os.environ.get("XDG_DATA_HOME") or _home(instead=f"DITR_{name.upper()}") / ".local" / "share"
        return Path(home) / "ditr" / name
    return _in_project(project, getattr(project.folders, name))


def _home(*, instead: str) -> Path:
    try:
        return Path.home()
    except RuntimeError:
        what, fix = "no home of this user is known", f"let HOME name one, or name the folder itself: {instead}"
        raise DitrError(what, code=Code.ENVIRONMENT, fix=fix) from None


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
