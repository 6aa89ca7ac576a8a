"""The fusion parts that are not built in: those of installed packages (entry points) and of the project (ditr.toml)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points

from ditr.errors import Code, DitrError
from ditr.plugins import code_digest, load
from ditr.project import PROJECT_FILE, find_project
from ditr.spec.fusion_part import FusionPart

ENTRY_POINTS = "ditr.fusion"
"""Their group; the name is the part's, the value ``module:Class``."""
_OF_THE_MODEL = ("backbone", "pool", "decoder", "other")
"""How the weights of a model begin that are of no fusion."""


@dataclass(frozen=True, kw_only=True)
class NamedPart:
    """Where a part comes from."""

    reference: str
    """``module:Class``"""
    where: str
    """What names it."""

    def load(self) -> type[FusionPart]:
        """Imports its module.

        Raises
        ------
        DitrError: it cannot be imported, or is no fusion part.
        """
        found = load(self.reference, where=self.where)
        if not (isinstance(found, type) and issubclass(found, FusionPart)) or inspect.isabstract(found):
            what = f"{self.reference} is no fusion part"
            fix = "name a class that extends ditr.fusion.FusionPart and has build(self, sizes)"
            raise DitrError(what, code=Code.ENVIRONMENT, where=self.where, fix=fix)
        return found


def named_parts(*, taken: Collection[str]) -> Mapping[str, NamedPart]:
    """By name, in the order of names; nothing is imported.

    Parameters
    ----------
    taken: names that no part can have.

    Raises
    ------
    DitrError: two have one name, or one has a name that it cannot have.
    """
    found: dict[str, NamedPart] = {}
    for point in _installed():
        _add(found, point.name, NamedPart(reference=point.value, where=_home_of(point)), taken=taken)
    if (project := find_project()) is not None:
        for name, reference in project.fusion.items():
            _add(found, name, NamedPart(reference=reference, where=str(project.folder / PROJECT_FILE)), taken=taken)
    return dict(sorted(found.items()))


def reference_of(name: str) -> str:
    """``module:Class`` as what names the part says it; the class may come from a module that this one imports.

    Raises
    ------
    DitrError: nothing here names a part of this name.
    """
    named = named_parts(taken=()).get(name)
    if named is None:
        fix = f"name it under [fusion] of the project's {PROJECT_FILE}, or install the package that has it"
        raise DitrError(f"the fusion part {name} cannot be found here", code=Code.ENVIRONMENT, where=name, fix=fix)
    return named.reference


def digest_of(name: str) -> str:
    """32 hex digits of the code that a part is made of."""
    return code_digest(reference_of(name))


def _add(found: dict[str, NamedPart], name: str, part: NamedPart, *, taken: Collection[str]) -> None:
    what = wrong_name(name, taken=taken)
    if name in found:
        what = f"{found[name].where} has a fusion part of this name too"
    if what:
        raise DitrError(f"'{name}': {what}", code=Code.ENVIRONMENT, where=part.where, fix="name it otherwise")
    found[name] = part


def wrong_name(name: str, *, taken: Collection[str]) -> str:
    """Why no part can be called so; empty if one can."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        return "a fusion part's name has lower-case letters, digits and underscores, and starts with a letter"
    if name in taken or name in _OF_THE_MODEL:
        return "no fusion part can be called so: the name is taken"
    return ""


def installed(name: str) -> str:
    """Which package has a part of this name, in a sentence; empty if none has."""
    return next(
        (f"{_home_of(point)} has a fusion part of this name" for point in _installed() if point.name == name), ""
    )


def _home_of(point: EntryPoint) -> str:
    return f"the package {point.dist.name}" if point.dist else "a package"


@cache
def _installed() -> EntryPoints:
    return entry_points(group=ENTRY_POINTS)
