"""A project: the folder of a user's own specs, registry, data and runs, marked by its ``ditr.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ditr.errors import Code, DitrError
from ditr.profiles import Profile, with_launcher

PROJECT_FILE = "ditr.toml"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Folders(_Table):
    """Where the project's things lie, relative to ``ditr.toml`` or absolute; null takes the place by default."""

    runs: Path = Path("runs")
    data: Path = Path("data")
    weights: Path = Path("weights")
    cache: Path | None = None


class Tracking(_Table):
    """Where views of the records are, that are not beside them."""

    mlflow: str | None = None
    """Address of a server of MLflow's: http://HOST:PORT."""


class _Settings(_Table):
    """All that a ``ditr.toml`` can say."""

    folders: Folders = Folders()
    tracking: Tracking = Tracking()
    fusion: dict[
        Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")],
        Annotated[str, Field(pattern=r"^[\w.]+:\w+$")],
    ] = Field(default={})
    """The project's own fusion parts: name -> ``module:Class``."""
    profiles: Annotated[
        dict[str, Annotated[Profile, Field(discriminator="launcher")]], BeforeValidator(with_launcher)
    ] = Field(default={})
    """What ``ditr run --on NAME`` asks a cluster for."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """One folder and what its ``ditr.toml`` says."""

    folder: Path
    folders: Folders
    tracking: Tracking
    fusion: dict[str, str]
    """Name of a fusion part -> ``module:Class``."""
    profiles: dict[str, Profile]


def find_project(start: Path | None = None) -> Project | None:
    """That of the nearest folder at or above ``start`` (the working directory) with a ``ditr.toml``; None without.

    Raises
    ------
    DitrError: the file cannot be read, or says what it cannot say; or the working directory is not there any more.
    """
    if start is None:
        try:
            start = Path.cwd()
        except FileNotFoundError:
            what, fix = "the working directory is not there any more", "change into one that is"
            raise DitrError(what, code=Code.ENVIRONMENT, fix=fix) from None
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            return _read(folder)
    return None


def _read(folder: Path) -> Project:
    file = folder / PROJECT_FILE
    try:
        settings = _Settings.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        known = f"its tables are {', '.join(_Settings.model_fields)}, and folders are {', '.join(Folders.model_fields)}"
        raise DitrError(f"{key}: {first['msg']}", code=Code.ENVIRONMENT, where=str(file), fix=known) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        what = f"it cannot be read: {error}"
        raise DitrError(what, code=Code.ENVIRONMENT, where=str(file), fix="mend it; an empty file is fine") from None
    return Project(
        folder=folder,
        folders=settings.folders,
        tracking=settings.tracking,
        fusion=settings.fusion,
        profiles=settings.profiles,
    )
