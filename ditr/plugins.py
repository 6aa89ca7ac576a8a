"""Code that a user brings: an attribute of a module, and a digest of what decides what it computes."""

from __future__ import annotations

import ast
import hashlib
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ditr import paths
from ditr.errors import Code, DitrError


def load(reference: str, *, where: str) -> Any:
    """What ``module:attribute`` names; modules of the project's folder can be named, from any folder of it.

    Parameters
    ----------
    where: what names it, for messages: a file, or file:line:col.

    Raises
    ------
    DitrError: there is no such module or attribute, or importing it fails; with the place in the user's code.
    """
    module, _, attribute = reference.partition(":")
    _make_importable()
    try:
        found = import_module(module)
    except Exception as error:  # whatever a user's module raises
        raise _failed(error, module=module, where=where) from error
    if not hasattr(found, attribute):
        names = ", ".join(name for name in vars(found) if not name.startswith("_")) or "nothing"
        what = f"module {module} has no {attribute}; it has {names}"
        raise DitrError(what, code=Code.ENVIRONMENT, where=where, fix=f"correct {reference!r}")
    return getattr(found, attribute)


def is_there(reference: str) -> bool:
    """Whether there is such a module; nothing is run but the packages that it lies in."""
    _make_importable()
    return _file_of(reference.partition(":")[0]) is not None


def code_digest(reference: str) -> str:
    """32 hex digits of the text of ``modules``."""
    digest = hashlib.sha256()
    for name, file in sorted(modules(reference).items()):
        digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def modules(reference: str) -> dict[str, Path]:
    """By full name, the files of the module and of all that it imports from the same project or package.

    What it imports inside functions counts too; what it imports from ditr or from other packages does not.
    """
    _make_importable()
    module = reference.partition(":")[0]
    files: dict[str, Path] = {}
    home = _home(module)
    pending = [module]
    while pending:
        name = pending.pop()
        file = _file_of(name)
        if name in files or file is None or not file.is_relative_to(home) or name.partition(".")[0] == "ditr":
            continue
        if "site-packages" in file.relative_to(home).parts:  # of a virtual environment within the project
            continue
        files[name] = file
        pending += _imports(file, name=name)
    return files


def _make_importable() -> None:
    folder = str(paths.project_dir())
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _home(module: str) -> Path:
    """The folder whose modules are the user's: the project's, or that of the installed package."""
    file, project = _file_of(module), paths.project_dir().resolve()
    if file is None or file.is_relative_to(project):
        return project
    return file.parents[module.count(".")] if file.name == "__init__.py" else file.parent


def _file_of(module: str) -> Path | None:
    """The module's Python file; None if it has none, or there is no such module."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    origin = spec.origin if spec is not None else None
    return Path(origin).resolve() if origin is not None and origin.endswith(".py") else None


def _imports(file: Path, *, name: str) -> Iterator[str]:
    """Modules that a file may import, by their full names, and the packages that they lie in."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in found:
            steps = module.split(".")
            yield from (".".join(steps[:end]) for end in range(1, len(steps) + 1))


def _failed(error: Exception, *, module: str, where: str) -> DitrError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f" ({last.filename}:{last.lineno})" if not last.filename.startswith("<") else ""
    fix = f"make `import {module}` work in {paths.project_dir()}, or install its package"
    what = f"cannot import {module}: {type(error).__name__}: {error}{place}"
    return DitrError(what, code=Code.ENVIRONMENT, where=where, fix=fix)
