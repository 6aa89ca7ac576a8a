"""From a spec file to a checked, frozen spec, or to every mistake in it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ditr.spec.compose import Composed, compose
from ditr.spec.explain import check
from ditr.spec.models import Spec
from ditr.spec.problems import Finding, Origin, Problem, SpecErrors, dotted
from ditr.spec.registry import Registry
from ditr.spec.rules import broken_entries, broken_rules
from ditr.spec.source import Value


@dataclass(frozen=True)
class LoadedSpec:
    """A spec and where each of its values came from; values without an origin are defaults."""

    spec: Spec
    path: Path
    origins: Mapping[str, Origin]
    """Dotted path (``schedule.epochs``, ``seeds[0]``) of every value that was written."""
    overrides: tuple[str, ...] = ()


def load_spec(path: Path, *, registry: Registry, overrides: Sequence[str] = ()) -> LoadedSpec:
    """Reads ``path``, its parents and ``overrides`` (``path=value``); raises ``SpecErrors`` with every mistake."""
    composed = compose(path, overrides=overrides)
    tree = composed.value
    spec, problems = check(tree, Spec)
    if composed.complete:
        parts = {"registry": registry} | _good_parts(tree, problems)
        problems += [_problem(finding, composed) for finding in broken_rules(parts)]
        problems += broken_entries(parts)
    else:  # what is missing or does not fit may stand in the file that could not be read
        problems = _without_missing(problems)
    if composed.problems or problems:
        raise SpecErrors([*composed.problems, *problems])
    origins = {dotted(steps): value.origin for steps, value in tree.walk()}
    return LoadedSpec(spec, path, origins, tuple(overrides))


def _problem(finding: Finding, composed: Composed) -> Problem:
    """At the place, of all the values that clash, that was written last: an override, else in the nearest file."""
    written = [composed.value.at(steps) for steps in (finding.path, *finding.others)]
    origins = [value.origin for value in written if value is not None]
    fallback = composed.value.nearest(finding.path).origin
    return Problem(min(origins, key=composed.rank, default=fallback), dotted(finding.path), finding.what)


def check_base(path: Path) -> None:
    """Reads a file that only others extend; raises ``SpecErrors`` with every mistake but what such a file may lack."""
    composed = compose(path)
    _, problems = check(composed.value, Spec)
    problems = _without_missing(problems)
    if composed.problems or problems:
        raise SpecErrors([*composed.problems, *problems])


def _without_missing(problems: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in problems if not problem.what.startswith("missing")]


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
