"""Code that a user brings: an attribute of a module, and a digest of what decides what it computes.

A process has one code: what it has seen first is what it loads and what its numbers are kept under, or it says that the
files have changed. Else an edit during a run would bring numbers of the new code under the key of the old one.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ditr import paths
from ditr.errors import Code, DitrError


def load(reference: str, *, where: str) -> Any:
    """What ``module:attribute`` names; modules of the project's folder can be named, from any folder of it.

    What the module prints goes to the standard error, for the other may be a file that a command writes.

    Parameters
    ----------
    where: what names it, for messages: a file, or file:line:col.

    Raises
    ------
    DitrError: there is no such module or attribute, or importing it fails, with the place in the user's code; or
        its files have changed since this process saw them first, or importing it changes how torch computes.
    """
    module, _, attribute = reference.partition(":")
    _make_importable()
    found = sys.modules.get(module) or _first_import(module, where=where)
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
    """32 hex digits of the text of ``modules``, as it was when this process first asked."""
    return _seen_first(reference.partition(":")[0], project=paths.project_dir())


def modules(reference: str) -> dict[str, Path]:
    """By full name, the files of the module and of all that it imports from the same project or package.

    What it imports inside functions counts too; what it imports from ditr or from other packages does not.
    """
    _make_importable()
    module = reference.partition(":")[0]
    files: dict[str, Path] = {}
    home = _home(module)
    pending = [*_with_packages(module)]
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


@cache
def _seen_first(module: str, *, project: Path) -> str:
    return _on_disk(module)


def _on_disk(module: str) -> str:
    digest = hashlib.sha256()
    for name, file in sorted(modules(module).items()):
        digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def _first_import(module: str, *, where: str) -> Any:
    first, before = _seen_first(module, project=paths.project_dir()), _torch_at_first()
    try:
        with redirect_stdout(sys.stderr):
            found = import_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        raise _failed(error, module=module, where=where) from error
    if _on_disk(module) != first:
        what, fix = f"the code of {module} has changed since this process began", "call the command once more"
    elif changed := [name for name, value in _how_torch_computes().items() if value != before[name]]:
        what = f"importing {module} changes {', '.join(changed)} for all that this process computes"
        fix = "leave torch's settings as they are: other runs of a command would get other numbers than alone"
    else:
        return found
    del sys.modules[module]  # to be refused again
    raise DitrError(what, code=Code.ENVIRONMENT, where=where, fix=fix)


@cache
def _torch_at_first() -> dict[str, object]:
    return _how_torch_computes()


def _how_torch_computes() -> dict[str, object]:
    """Settings of a process that change numbers, by what a user knows them as."""
    import torch

    return {
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_default_device()": torch.get_default_device(),
        "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision(),
        "torch.backends.cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled(),
    }


def _make_importable() -> None:
    folder = str(paths.project_dir())
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _home(module: str) -> Path:
    """The folder whose modules are the user's: the project's, or that of the installed package."""
    file, project = _file_of(module), paths.project_dir()
    if file is None or file.is_relative_to(project):
        return project
    return file.parents[module.count(".")] if file.name == "__init__.py" else file.parent


def _file_of(module: str) -> Path | None:
    """The module's Python file where it is imported from, not where a link leads; None without one."""
    try:
        spec = find_spec(module)
    except (Exception, SystemExit):  # whatever its packages raise when they are imported; importing it will tell
        return None
    origin = spec.origin if spec is not None else None
    return Path(origin).absolute() if origin is not None and origin.endswith(".py") else None


def _imports(file: Path, *, name: str) -> Iterator[str]:
    """Modules that a file may import, by their full names, and the packages that they lie in."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # if it is ever imported, that fails and tells why
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in found:
            yield from _with_packages(module)


def _with_packages(module: str) -> Iterator[str]:
    """``a.b.c`` and what is imported before it: ``a``, ``a.b``, ``a.b.c``."""
    steps = module.split(".")
    yield from (".".join(steps[:end]) for end in range(1, len(steps) + 1))


def failure(error: BaseException) -> str:
    """What a user's code raised, in one line, with the last place in it that is not of an installed package."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    reason = (str(error).strip() or "nothing said").splitlines()[0]
    return f"{type(error).__name__}: {reason}{place}"


def _is_own(file: str) -> bool:
    of_ditr = Path(file).is_relative_to(Path(__file__).parent)
    return not (file.startswith("<") or "site-packages" in file or of_ditr)


def _failed(error: Exception | SystemExit, *, module: str, where: str) -> DitrError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    file, line, reason = last.filename, last.lineno, str(error)
    if isinstance(error, SyntaxError) and error.filename:
        file, line, reason = error.filename, error.lineno, error.msg
    place = f" ({file}:{line})" if not file.startswith("<") else ""
    fix = f"make `import {module}` work in {paths.project_dir()}, or install its package"
    what = f"cannot import {module}: {type(error).__name__}: {reason}{place}"
    return DitrError(what, code=Code.ENVIRONMENT, where=where, fix=fix)
