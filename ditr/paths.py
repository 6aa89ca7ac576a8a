"""Where things live. Every location has one default and one environment variable."""

from __future__ import annotations

import os
from pathlib import Path


def project_dir() -> Path:
    """The nearest folder at or above the working directory that holds ``registry/``, else ditr's own checkout."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "registry" / "datasets").is_dir():
            return folder
    return Path(__file__).resolve().parents[1]


def registry_dir() -> Path:
    """Named, pinned things that specs refer to (``DITR_REGISTRY``, default ``registry/`` of the project)."""
    return _from_env("DITR_REGISTRY", project_dir() / "registry")


def runs_dir() -> Path:
    """Run folders, ``mlflow.db`` and ``results.duckdb`` (``DITR_RUNS``, default ``runs/`` of the project)."""
    return _from_env("DITR_RUNS", project_dir() / "runs")


def data_dir() -> Path:
    """Prepared data sets the user brings (``DITR_DATA``, default ``data/`` of the project)."""
    return _from_env("DITR_DATA", project_dir() / "data")


def weights_dir() -> Path:
    """Weight files the user brings: DINOv2, Mask3D, ESAM (``DITR_WEIGHTS``, default ``weights/`` of the project)."""
    return _from_env("DITR_WEIGHTS", project_dir() / "weights")


def cache_dir() -> Path:
    """What ditr makes and can make again: embedded data, feature maps (``DITR_CACHE``, default ``~/.cache/ditr``)."""
    return _from_env("DITR_CACHE", Path.home() / ".cache" / "ditr")


def _from_env(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else default
