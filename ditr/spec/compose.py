"""One tree from a spec file, the chain of its parents (``extends``) and the overrides (``--set``)."""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ditr.spec.places import DISCRIMINATORS
from ditr.spec.problems import Origin, Problem, did_you_mean, shown_path
from ditr.spec.source import Value, parse, read_source


@dataclass
class Composed:
    """What a spec says; ``complete`` is false where a file could not be read, so that keys may be missing."""

    value: Value
    problems: list[Problem] = field(default_factory=list)
    complete: bool = True
    files: tuple[str, ...] = ()
    """The file and its parents, nearest first."""

    def rank(self, origin: Origin) -> int:
        """0 for an override, then 1 for the file itself, 2 for its parent, and so on."""
        return 1 + self.files.index(origin.file) if origin.line else 0


def compose(path: Path, *, overrides: Sequence[str] = ()) -> Composed:
    """The merged tree of ``path``; mistakes are collected, never raised."""
    composed = _with_parents(Path(os.path.normpath(path.absolute())), chain=())
    changes: Value | None = None
    for text in overrides:
        change, problems = _override(text)
        composed.problems += problems
        if change is None:
            composed.complete = False
        elif changes is not None and (twice := _first_clash(changes, change)):
            composed.problems.append(Problem(change.origin, twice, "set twice; keep one of the two"))
        else:
            changes = change if changes is None else merge(changes, change)
    if changes is not None:
        composed.value = merge(composed.value, changes)
    return composed


def merge(base: Value, child: Value) -> Value:
    """Maps merge deeply, everything else of the child replaces; so does a map of another kind."""
    if not isinstance(base.data, dict) or not isinstance(child.data, dict) or _changes_kind(base.data, child.data):
        return child
    merged = dict(base.data)
    for key, value in child.data.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return replace(child, data=merged)


def _with_parents(path: Path, *, chain: tuple[Path, ...]) -> Composed:
    source = read_source(path)
    start = Value({}, Origin(str(path), 1, 1))
    if source.value is None:
        return Composed(start, source.problems, False, (str(path),))
    assert isinstance(source.value.data, dict)
    data = dict(source.value.data)
    extends = data.pop("extends", None)
    own = Value(data, start.origin)
    if extends is None:
        return Composed(own, source.problems, True, (str(path),))
    parent, what = _parent(path, extends, chain=(*chain, path))
    if parent is None:
        problem = Problem(extends.origin, "extends", what)
        return Composed(own, [*source.problems, problem], False, (str(path),))
    base = _with_parents(parent, chain=(*chain, path))
    problems = [*source.problems, *base.problems]
    return Composed(merge(base.value, own), problems, base.complete, (str(path), *base.files))


def _parent(path: Path, extends: Value, *, chain: tuple[Path, ...]) -> tuple[Path | None, str]:
    """The file that ``extends`` names, or what is wrong with it."""
    name = extends.data
    if not isinstance(name, str) or not name:
        return None, "must be the path of one file, relative to this one, such as _base.yaml"
    if Path(name).is_absolute():
        return None, "must be relative to this file"
    parent = Path(os.path.normpath(path.parent / name))  # not resolve(): messages name files as the user does
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


def _override(text: str) -> tuple[Value | None, list[Problem]]:
    """``path=value`` as a tree of maps around the value."""
    origin = Origin(f"--set {text}", 0, 0)
    path, equals, value_text = text.partition("=")
    path = path.strip()
    if not equals:
        return None, [Problem(origin, "", "must be path=value, such as schedule.epochs=2")]
    if not re.fullmatch(r"\w+(\.\w+)*", path):
        what = "not a path; write keys with dots between, such as schedule.epochs (a list is replaced whole)"
        return None, [Problem(origin, path, what)]
    if path == "extends":
        return None, [Problem(origin, path, "cannot be set; write a spec that extends the other file")]
    source = parse(value_text, file=origin.file, override=True) if value_text.strip() else None
    if source is None:
        return None, [Problem(origin, path, "no value; write null to switch a part off")]
    problems = [replace(problem, path=f"{path}.{problem.path}".rstrip(".")) for problem in source.problems]
    if source.value is None:
        return None, problems
    value = replace(source.value, key=origin)
    for key in reversed(path.split(".")):
        value = Value({key: value}, origin, origin)
    return value, problems


def _first_clash(first: Value, second: Value) -> str:
    """The dotted path that both set, empty if there is none."""
    if not isinstance(first.data, dict) or not isinstance(second.data, dict):
        return ""
    for key in second.data.keys() & first.data.keys():
        other, value = first.data[key], second.data[key]
        if not isinstance(other.data, dict) or not isinstance(value.data, dict):
            return key
        if below := _first_clash(other, value):
            return f"{key}.{below}"
    return ""
