"""``ditr init``: a project of the user's own, and templates of what it can hold."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from importlib.machinery import PathFinder
from keyword import iskeyword
from pathlib import Path
from typing import Annotated

import typer

from ditr.errors import Code, DitrError
from ditr.project import PROJECT_FILE, find_project
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
    folder = (folder or Path.cwd()).resolve()
    project = find_project(folder)
    if project is not None and arm is None and source is None:
        fix = "add to it with --arm NAME or --source NAME, or name another folder"
        raise DitrError("there is a project already", code=Code.ENVIRONMENT, where=str(project.folder), fix=fix)
    home = folder if project is None else project.folder
    files = [] if project is not None else list(PROJECT.files(name=folder.name))
    if arm is not None:
        if what := FusionSpec.refusal(arm):
            raise DitrError(f"'{arm}': {what}", code=Code.ENVIRONMENT, where="--arm", fix="take another name")
        files += ARM.files(name=_free(arm, home))
    if source is not None:
        files += SOURCE.files(name=_free(source, home))
    settings = (
        "" if arm is None else _with_fusion(arm, dict(files).get(Path(PROJECT_FILE)) or _read(home / PROJECT_FILE))
    )
    try:
        _write(files, into=home)
        if arm is not None:
            (home / PROJECT_FILE).write_bytes(settings.encode())
            typer.echo(f"added to {home / PROJECT_FILE}: {_line(arm)}")
        with chdir(home):  # whose parts are in the schema
            _renew_schema(home)
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        fix = "name a folder that you can write to"
        raise DitrError(what, code=Code.ENVIRONMENT, where=str(error.filename or home), fix=fix) from None


def _free(name: str, folder: Path) -> str:
    """A name that a module of the project can have, and that hides no other module."""
    if not _NAME.fullmatch(name) or iskeyword(name) or _is_taken(name, folder):
        fix = "take another name: lower case letters, digits and _, of no module that is installed"
        raise DitrError(f"{name!r} cannot be a module's name", code=Code.ENVIRONMENT, where=str(folder), fix=fix)
    return name


def _is_taken(name: str, folder: Path) -> bool:
    if name in sys.stdlib_module_names or (_TEMPLATES.parents[1] / name).exists():
        return True
    others = [entry for entry in sys.path if Path(entry).resolve() != folder]
    found = PathFinder.find_spec(name, others)
    return found is not None and found.origin is not None  # without one it is a folder that a module goes before


def _write(files: Sequence[tuple[Path, str]], *, into: Path) -> None:
    """All of them or, if one is there already or would be written twice, none."""
    places = [place for place, _ in files]
    there = [str(place) for place in dict.fromkeys(places) if (into / place).exists() or places.count(place) > 1]
    if there:
        what = f"{', '.join(there)} would be written and {'is' if len(there) == 1 else 'are'} there already"
        raise DitrError(what, code=Code.ENVIRONMENT, where=str(into), fix="move or remove it, or take another name")
    for place, text in files:
        (into / place).parent.mkdir(parents=True, exist_ok=True)
        (into / place).write_text(text, encoding="utf-8")
        typer.echo(f"wrote {into / place}")


def _with_fusion(name: str, text: str) -> str:
    """The text of the project's file with a line in its table [fusion], and with all else in it as it was.

    Raises
    ------
    DitrError: there is such a line already, or the table is written in a way that no line can be added to.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    heading = re.search(r"^\s*\[\s*fusion\s*\].*\n?", text, re.MULTILINE)
    if heading is None:
        longer = f"{text.rstrip()}{newline * 2}[fusion]{newline}{_line(name)}{newline}".lstrip()
    else:
        longer = f"{text[: heading.end()].rstrip()}{newline}{_line(name)}{newline}{text[heading.end() :]}"
    try:
        added = tomllib.loads(longer)["fusion"][name] == f"{name}:{_title(name)}"
    except tomllib.TOMLDecodeError:
        added = False
    if not added:
        what = f"no line of the fusion part {name} can be added; one may be there already"
        fix = f"take another name, or have a table [fusion] in it for the line {_line(name)}"
        raise DitrError(what, code=Code.ENVIRONMENT, where=PROJECT_FILE, fix=fix)
    return longer


def _line(name: str) -> str:
    return f'{name} = "{name}:{_title(name)}"'


def _read(file: Path) -> str:
    """With its ends of lines as they are."""
    return file.read_bytes().decode("utf-8")


def _renew_schema(folder: Path) -> None:
    from ditr.spec.schema import schema_text

    file = folder / "registry" / "spec.schema.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(schema_text(), encoding="utf-8")


def _title(name: str) -> str:
    """``my_film`` -> ``MyFilm``."""
    return "".join(word.capitalize() for word in name.split("_"))
