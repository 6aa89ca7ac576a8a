"""``ditr init``: a project of the user's own, and templates of what it can hold."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ditr.errors import Code, DitrError
from ditr.project import PROJECT_FILE, Project, find_project
from ditr.spec.fusion import FusionSpec

_TEMPLATES = Path(__file__).parents[1] / "templates"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Template:
    """Files below ``ditr/templates``."""

    folder: str
    name: str
    """What it is called there, in texts and file names; the user's name takes its place."""

    def files(self, *, name: str) -> Iterator[tuple[Path, str]]:
        """Where each file comes to lie in the project, and its text."""
        root = _TEMPLATES / self.folder
        for file in sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            place = file.relative_to(root).as_posix().replace(self.name, name)
            text = file.read_text(encoding="utf-8").replace(self.name, name)
            yield Path(re.sub(r"^gitignore$", ".gitignore", place)), text.replace(_title(self.name), _title(name))


PROJECT = Template("project", "my_project")
ARM = Template("arm", "film")
SOURCE = Template("source", "radio")


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(init)


def init(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="The project's folder.", show_default="here")
    ] = None,
    arm: Annotated[str | None, typer.Option(metavar="NAME", help="Write a fusion part of this name.")] = None,
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Write a 2D source of this name.")] = None,
) -> None:
    """Make a project: specs that extend the built-in ones, a registry laid over theirs, folders of its own.

    In a project that is there, --arm and --source add a working fusion part or 2D source with its spec and its test.
    Nothing that exists is changed but `ditr.toml`, which gets a line for the arm.
    """
    folder = Path.cwd() if folder is None else folder.absolute()
    project = find_project(folder)
    if project is None:
        _write(PROJECT.files(name=folder.name), into=folder)
        project = find_project(folder)
        assert project is not None, "its file was just written"
    elif arm is None and source is None:
        fix = "add to it with --arm NAME or --source NAME, or name another folder"
        raise DitrError("there is a project already", code=Code.ENVIRONMENT, where=str(project.folder), fix=fix)
    if arm is not None:
        if what := FusionSpec.refusal(arm):
            raise DitrError(f"'{arm}': {what}", code=Code.ENVIRONMENT, where="--arm", fix="take another name")
        _write(ARM.files(name=_free(arm, project)), into=project.folder)
        _name_fusion(arm, project)
    if source is not None:
        _write(SOURCE.files(name=_free(source, project)), into=project.folder)
    _renew_schema(project)


def _free(name: str, project: Project) -> str:
    """A name that a module of the project can have."""
    fix = "take another name: lower case letters, digits and _, of no module that is installed"
    if not _NAME.fullmatch(name) or name in sys.stdlib_module_names or (_TEMPLATES.parents[1] / name).exists():
        raise DitrError(
            f"{name!r} cannot be a module's name", code=Code.ENVIRONMENT, where=str(project.folder), fix=fix
        )
    return name


def _write(files: Iterator[tuple[Path, str]], *, into: Path) -> None:
    """All of them or, if one is there already, none."""
    found = list(files)
    if there := [str(place) for place, _ in found if (into / place).exists()]:
        what = f"{', '.join(there)} would be written and {'is' if len(there) == 1 else 'are'} there already"
        raise DitrError(what, code=Code.ENVIRONMENT, where=str(into), fix="move or remove it, or take another name")
    for place, text in found:
        (into / place).parent.mkdir(parents=True, exist_ok=True)
        (into / place).write_text(text, encoding="utf-8")
        typer.echo(f"wrote {into / place}")


def _name_fusion(name: str, project: Project) -> None:
    """A line in the table [fusion] of the project's file, with all else in it as it was."""
    file = project.folder / PROJECT_FILE
    line = f'{name} = "{name}:{_title(name)}"\n'
    text = file.read_text(encoding="utf-8")
    heading = re.search(r"^\[fusion\].*\n?", text, re.MULTILINE)
    if heading is None:
        text = f"{text.rstrip()}\n\n[fusion]\n{line}".lstrip()
    else:
        text = f"{text[: heading.end()].rstrip()}\n{line}{text[heading.end() :]}"
    file.write_text(text, encoding="utf-8")
    typer.echo(f"added to {file}: {line.rstrip()}")


def _renew_schema(project: Project) -> None:
    from ditr.spec.schema import schema_text

    file = project.folder / "registry" / "spec.schema.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(schema_text(), encoding="utf-8")


def _title(name: str) -> str:
    """``my_film`` -> ``MyFilm``."""
    return "".join(word.capitalize() for word in name.split("_"))
