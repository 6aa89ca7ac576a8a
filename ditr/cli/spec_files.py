"""Spec files as commands take them: a path, or the name of a spec of the project or of those that come with ditr."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ditr.errors import Code, DitrError
from ditr.paths import builtin_dir, project_dir
from ditr.spec.compose import BUILTIN
from ditr.spec.problems import did_you_mean, shown_path

_OVERRIDE = re.compile(r"[a-z_][\w.\[\]]*=.*", re.DOTALL)


def find_spec(word: str) -> Path:
    """``word`` itself where it is a file, else ``specs/<word>.yaml`` of the project, else the built-in one.

    ``ditr:<word>`` is the built-in one. The path of a YAML file that does not exist, or of a folder, stays as it is:
    reading it says what is wrong. One of a sweep is named behind its file, ``<word>::<name>``.

    Raises
    ------
    DitrError: there is no such spec, or the word sets a value, as other tools take it.
    """
    file, *point = word.split("::", 1)
    return Path("::".join([str(_find_file(file)), *point]))


def _find_file(word: str) -> Path:
    if word.startswith(BUILTIN):
        return builtin_dir() / "specs" / f"{word.removeprefix(BUILTIN).removesuffix('.yaml')}.yaml"
    path = Path(word)
    if path.is_file():
        return path
    places = [folder / f"{word}.yaml" for folder in _spec_dirs()]
    if found := next((place for place in places if place.is_file()), None):
        return found
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return path
    if _OVERRIDE.fullmatch(word):
        words = [part for argument in sys.argv[1:] for part in (["--set", word] if argument == word else [argument])]
        raise DitrError(f"{word!r} is no spec", code=Code.SPEC, fix=shlex.join(["ditr", *words]))
    what = f"no spec is called {word!r}{did_you_mean(word, _names(''))}"
    fix = f"name a file, or a spec of {' or '.join(shown_path(folder) for folder in _spec_dirs())}"
    raise DitrError(what, code=Code.SPEC, fix=fix)


def _names(incomplete: str) -> list[str]:
    """For the shell's completion."""
    found = [
        file.relative_to(folder).with_suffix("").as_posix()
        for folder in _spec_dirs()
        for file in sorted(folder.rglob("*.yaml"))
        if not file.name.startswith("_")
    ]
    return [name for name in dict.fromkeys(found) if name.startswith(incomplete)]


def _spec_dirs() -> tuple[Path, ...]:
    return (project_dir() / "specs", builtin_dir() / "specs")


_HELP = "A spec file, or the name of one in specs/: `baseline`, `study/bifusion`."
_ARGUMENT = typer.Argument(
    metavar="SPEC",
    help=_HELP,
    show_default=False,
    parser=find_spec,
    autocompletion=_names,
)
SpecFile = Annotated[Path, _ARGUMENT]
SpecFiles = Annotated[list[Path], _ARGUMENT]
