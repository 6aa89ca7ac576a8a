"""From a spec file to checked, frozen specs, or to every mistake in it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ditr.spec.compose import Composition, compose
from ditr.spec.explain import check
from ditr.spec.matrix import read_matrix
from ditr.spec.models import Spec
from ditr.spec.problems import Finding, Origin, Problem, ProblemKind, SpecErrors, allowed, dotted, shown_path
from ditr.spec.registry import Registry
from ditr.spec.rules import broken_entries, broken_rules
from ditr.spec.sweep_points import Point, points
from ditr.spec.sweep_rules import unlike
from ditr.spec.yaml_text import Value

_NO_SWEEP = Point({}, "")
"""The only point of a file that is none."""


@dataclass(frozen=True)
class LoadedSpec:
    """A spec and where each of its values came from; values without an origin are defaults."""

    spec: Spec
    path: Path
    """The file; for a spec of a sweep ``file.yaml::name``, which names it alone."""
    origins: Mapping[str, Origin]
    """Dotted path (``schedule.epochs``, ``seeds[0]``) of every value that was written."""
    overrides: tuple[str, ...] = ()
    """Its values of the matrix, if it is of a sweep, and those of the user, as ``path=value``."""


def load_spec(path: Path, *, registry: Registry, overrides: Sequence[str] = ()) -> LoadedSpec:
    """The spec in ``path``, which is no sweep or ``file.yaml::name``, one spec of a sweep; raises as ``load_all``."""
    composed, specs = _load(path, registry=registry, overrides=overrides)
    if len(specs) > 1:
        what = f"a sweep of {len(specs)} specs, and one is needed here; name it, such as {shown_path(specs[0].path)}"
        raise SpecErrors([Problem(_place(composed), "matrix", what)])
    return specs[0]


def load_all(path: Path, *, registry: Registry, overrides: Sequence[str] = ()) -> tuple[LoadedSpec, ...]:
    """The spec in ``path``, or all of a sweep, from the file, its parents and ``overrides`` (``path=value``).

    ``file.yaml::name`` is one spec of a sweep. Raises ``SpecErrors`` with every mistake of all specs, each once.
    """
    return _load(path, registry=registry, overrides=overrides)[1]


def check_base(path: Path) -> None:
    """Reads a file that only others extend; raises ``SpecErrors`` with every mistake but what such a file may lack."""
    composed = compose(path)
    _, problems = check(composed.value, Spec)
    problems = [*composed.problems, *_without_missing(problems)]
    if composed.matrix is not None:
        problems.append(
            Problem(_place(composed), "matrix", "not in a base; put it into a sweep that extends this file")
        )
    if problems:
        raise SpecErrors(problems)


def _load(path: Path, *, registry: Registry, overrides: Sequence[str]) -> tuple[Composition, tuple[LoadedSpec, ...]]:
    file, _, wanted = str(path).partition("::")
    composed = compose(Path(file), overrides=overrides)
    problems: list[Problem] = []
    specs: list[LoadedSpec] = []
    members: list[tuple[Point, Spec]] = []
    for point in _points(composed):
        tree = composed.tree(point.tree)
        spec, mistakes = _checked(tree, composed, registry)
        problems += [*mistakes, *_set_twice(point, composed.changes)]
        if spec is not None:
            specs.append(_loaded(spec, point, tree, file=file, overrides=overrides))
            members.append((point, specs[-1].spec))
    problems += composed.problems
    if not problems:
        problems = [*unlike(members, place=_place(composed), registry=registry), *_not_found(specs, composed, wanted)]
    if problems:
        raise SpecErrors(problems)
    return composed, tuple(loaded for loaded in specs if not wanted or loaded.spec.name == wanted)


def _points(composed: Composition) -> tuple[Point, ...]:
    """Those of the matrix; without one, or if it is wrong, the file as it is."""
    if composed.matrix is None:
        return (_NO_SWEEP,)
    matrix, problems = read_matrix(composed.matrix)
    composed.problems += problems
    composed.complete &= matrix is not None
    return (_NO_SWEEP,) if matrix is None else points(matrix)


def _checked(tree: Value, composed: Composition, registry: Registry) -> tuple[Spec | None, list[Problem]]:
    spec, problems = check(tree, Spec)
    if not composed.complete:  # what is missing or does not fit may stand where nothing could be read
        return None, _without_missing(problems)
    parts = {"registry": registry} | _good_parts(tree, problems)
    problems += [_problem(finding, tree, composed) for finding in broken_rules(parts)]
    return spec, problems + broken_entries(parts)


def _loaded(spec: Spec, point: Point, tree: Value, *, file: str, overrides: Sequence[str]) -> LoadedSpec:
    spec = spec.model_copy(update={"name": spec.name + point.ending})
    return LoadedSpec(
        spec,
        Path(f"{file}::{spec.name}" if point.ending else file),
        {dotted(steps): value.origin for steps, value in tree.walk()},
        (*point.overrides, *overrides),
    )


def _set_twice(point: Point, changes: Value) -> Iterator[Problem]:
    for path in point.values:
        steps = tuple(path.split("."))
        value = changes.nearest(steps)
        if value is changes.at(steps) or not isinstance(value.data, dict):
            yield Problem(value.origin, path, "the matrix sets it too; keep one of the two")


def _not_found(specs: Sequence[LoadedSpec], composed: Composition, wanted: str) -> Iterator[Problem]:
    names = [loaded.spec.name for loaded in specs]
    if wanted and composed.matrix is None:
        yield Problem(_place(composed), "", f"no sweep, but one spec; leave ::{wanted} out")
    elif wanted and wanted not in names:
        what = f"no spec of this sweep is called '{wanted}'{allowed(wanted, names, label='there are')}"
        yield Problem(_place(composed), "matrix", what)


def _place(composed: Composition) -> Origin:
    """Where the matrix is written; the file without one."""
    return composed.value.origin if composed.matrix is None else composed.matrix.key or composed.matrix.origin


def _problem(finding: Finding, tree: Value, composed: Composition) -> Problem:
    """At the place, of all the values that clash, that was written last: an override, else in the nearest file."""
    written = [tree.at(steps) for steps in (finding.path, *finding.others)]
    origins = [value.origin for value in written if value is not None]
    fallback = tree.nearest(finding.path).origin
    return Problem(min(origins, key=composed.rank, default=fallback), dotted(finding.path), finding.what)


def _without_missing(problems: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.kind is not ProblemKind.MISSING]


def _good_parts(tree: Value, problems: Sequence[Problem]) -> dict[str, Any]:
    """The top-level parts without a mistake, so that the mistake of one does not hide those of another."""
    assert isinstance(tree.data, dict)
    bad = {problem.path.replace("[", ".").split(".")[0] for problem in problems}
    parts: dict[str, Any] = {}
    for name, field in Spec.model_fields.items():
        if name not in bad:
            written = tree.data.get(name)
            parts[name] = field.default if written is None else check(written, field.annotation)[0]
    return parts
