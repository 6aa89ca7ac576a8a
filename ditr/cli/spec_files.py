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

_OVERRIDE = re.compile(r"[a-z_][\w.\[\]]*=.*", re.DOTALL)


def find_spec(word: str) -> Path:
    """``word`` itself where it is a path, else ``specs/<word>.yaml`` of the project, else the built-in one.

    ``ditr:<word>`` is the built-in one. A path that does not exist stays as it is: reading it says what is wrong.

    Raises
    ------
    DitrError: the word sets a value, as other tools take it.
    """
    if word.startswith(BUILTIN):
        return builtin_dir() / "specs" / f"{word.removeprefix(BUILTIN).removesuffix('.yaml')}.yaml"
    path = Path(word)
    if path.suffix or path.is_file():
        return _require_no_override(word, path)
    places = [folder / f"{word}.yaml" for folder in _spec_dirs()]
    return next((place for place in places if place.is_file()), _require_no_override(word, path))


def _require_no_override(word: str, path: Path) -> Path:
    if not path.exists() and _OVERRIDE.fullmatch(word):
        words = [part for argument in sys.argv[1:] for part in (["--set", word] if argument == word else [argument])]
        raise DitrError(f"{word!r} is no spec", code=Code.SPEC, fix=shlex.join(["ditr", *words]))
    return path


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
