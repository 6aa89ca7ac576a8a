"""One tree from a spec file, the chain of its parents (``extends``) and the overrides (``--set``)."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ditr import paths
from ditr.spec.file_schema import take_schema
from ditr.spec.locations import DISCRIMINATORS
from ditr.spec.overrides import first_clash, read_override
from ditr.spec.problems import Origin, Problem, did_you_mean, shown_path
from ditr.spec.yaml_text import Value, read_yaml

BUILTIN = "ditr:"
"""Before the name of a spec in ``extends``: it is one of those that come with ditr."""


@dataclass
class Composition:
    """What a spec says; ``complete`` is false where a file could not be read, so that keys may be missing."""

    value: Value
    """What the file and its parents say, without ``extends``, ``matrix``, ``schema`` and overrides."""
    problems: list[Problem] = field(default_factory=list)
    complete: bool = True
    files: tuple[str, ...] = ()
    """The file and its parents, nearest first."""
    matrix: Value | None = None
    """What makes the file a sweep; of the file alone, for a sweep cannot be extended."""
    changes: Value = field(default_factory=lambda: Value({}, Origin("--set", 0, 0)))
    """What the overrides say."""

    def tree(self, point: Value) -> Value:
        """The whole spec at a point of the matrix: overrides go before its values, these before the file's."""
        merged = merge(merge(self.value, point), self.changes)
        return replace(merged, origin=self.value.origin)

    def rank(self, origin: Origin) -> int:
        """0 for an override, then 1 for the file itself, 2 for its parent, and so on."""
        return 1 + self.files.index(origin.file) if origin.line else 0


def compose(path: Path, *, overrides: Sequence[str] = ()) -> Composition:
    """What ``path``, its parents and the overrides say; mistakes are collected, never raised."""
    composed = _with_parents(Path(os.path.normpath(path.absolute())), chain=())
    for text in overrides:
        change, problems = read_override(text)
        composed.problems += problems
        if change is None:
            composed.complete = False
        elif twice := first_clash(composed.changes, change):
            composed.problems.append(Problem(change.origin, twice, "set twice; keep one of the two"))
        else:
            composed.changes = merge(composed.changes, change)
    return composed


def merge(base: Value, child: Value) -> Value:
    """Maps merge deeply, everything else of the child replaces; so does a map of another kind."""
    if not isinstance(base.data, dict) or not isinstance(child.data, dict) or _changes_kind(base.data, child.data):
        return child
    merged = dict(base.data)
    for key, value in child.data.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return replace(child, data=merged)


def _with_parents(path: Path, *, chain: tuple[Path, ...]) -> Composition:
    source = read_yaml(path)
    start = Value({}, Origin(str(path), 1, 1))
    if source.value is None:
        return Composition(start, source.problems, False, (str(path),))
    said, wrong = take_schema(source.value)
    if wrong is not None:
        return Composition(start, [wrong], False, (str(path),))
    assert isinstance(said.data, dict)
    data = dict(said.data)
    extends, matrix = data.pop("extends", None), data.pop("matrix", None)
    own = Value(data, start.origin)
    if extends is None:
        return Composition(own, source.problems, True, (str(path),), matrix)
    parent, what = _parent(path, extends, chain=(*chain, path))
    if parent is None:
        problem = Problem(extends.origin, "extends", what)
        return Composition(own, [*source.problems, problem], False, (str(path),), matrix)
    base = _with_parents(parent, chain=(*chain, path))
    problems = [*source.problems, *base.problems]
    if base.matrix is not None:
        what = f"{shown_path(parent)} is a sweep, and a sweep cannot be extended; extend the spec that it extends"
        problems.append(Problem(extends.origin, "extends", what))
    return Composition(merge(base.value, own), problems, base.complete, (str(path), *base.files), matrix)


def _parent(path: Path, extends: Value, *, chain: tuple[Path, ...]) -> tuple[Path | None, str]:
    """The file that ``extends`` names, or what is wrong with it."""
    name = extends.data
    if not isinstance(name, str) or not name:
        return None, f"must be the path of one file, relative to this one, such as _base.yaml or {BUILTIN}_base.yaml"
    own = name.removeprefix(BUILTIN)
    if Path(own).is_absolute():
        return None, "must be relative to this file"
    folder = path.parent if own == name else paths.builtin_dir() / "specs"
    parent = Path(os.path.normpath(folder / own))  # not resolve(): messages name files as the user does
    if parent in chain:
        names = [shown_path(file) for file in (*chain[chain.index(parent) :], parent)]
        return None, f"a cycle: {' -> '.join(names)}"
    if not os.path.isfile(parent):  # false, not an error, for names that no file can have
        here = parent.parent
        others = [file.name for file in sorted(here.glob("*.yaml")) if file != path] if here.is_dir() else []
        return None, f"no such file: {shown_path(parent)}{did_you_mean(parent.name, others)}"
    return parent, ""


def _changes_kind(base: dict[str, Value], child: dict[str, Value]) -> bool:
    return any(key in base and key in child and base[key].data != child[key].data for key in DISCRIMINATORS)
