"""Whether arms differ in one thing, their fusion or its features: what else differs is refused by name, or allowed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ditr.errors import Code, DitrError
from ditr.report.arms import Arm, ArmRun
from ditr.report.run_facts import ENGINE_FACTS, FACTS, FEATURE_FACTS, Fact
from ditr.spec.diff import diff
from ditr.spec.identity import CHANGES_NO_NUMBER, PLACES, is_control
from ditr.spec.models import SeededWeights, Spec

_COMPARED = {"fusion", "features"}
"""What is compared: the fusion, and the 2D features that it reads."""


@dataclass(frozen=True, kw_only=True)
class Inequality:
    """A field in which runs differ that should not."""

    field: str
    """What ``--allow`` calls it: a path of the spec, or a name in ``run_facts``."""
    values: tuple[tuple[str, tuple[str, ...]], ...]
    """Each value, and the labels of the arms that have it, with the seeds of those runs where not all of an arm do."""

    def __str__(self) -> str:
        each = "; ".join(f"{value} in {', '.join(labels)}" for value, labels in self.values)
        return f"{self.field}: {each}"


def caveats(arms: Sequence[Arm], *, allow: Sequence[str]) -> tuple[str, ...]:
    """What differs besides the one thing and is allowed, a sentence each.

    Two fused arms may differ in their fusion or in the features that it reads, not in both; 3D-only arms read none,
    whatever their specs name. A control has the features of a real arm, but for what makes it a control. Arms that name
    the same 2D source have read the same weights, or the same precomputed maps; arms of one engine had one version of
    it.

    Parameters
    ----------
    allow: fields that may differ; ``schedule`` allows all of the schedule.

    Raises
    ------
    DitrError: something else differs, or ``allow`` names what does not.
    """
    found = [*_in_specs(arms), *_in_features(arms), *_in_facts(arms), *_in_looks(arms)]
    refused = [unequal for unequal in found if not any(_covers(name, unequal.field) for name in allow)]
    if refused:
        options = " ".join(f"--allow {unequal.field}" for unequal in refused)
        each = "".join(f"\n    {unequal}" for unequal in refused)
        raise DitrError(
            f"these runs differ in more than what is compared, so a difference could be due to that:{each}",
            code=Code.RUN,
            fix=f"Run them alike, or accept it, which the output then says: {options}",
        )
    if idle := [name for name in allow if not any(_covers(name, unequal.field) for unequal in found)]:
        names = ", ".join(sorted(unequal.field for unequal in found)) or "nothing"
        what = f"--allow {idle[0]}: the runs do not differ in it, or may anyway; what needs to be allowed: {names}"
        raise DitrError(what, code=Code.RUN, fix="Leave it out.")
    return tuple(f"Not alike, and allowed to be: {unequal}." for unequal in found)


def _covers(name: str, field: str) -> bool:
    return field == name or field.startswith(f"{name}.")


def _in_specs(arms: Sequence[Arm]) -> Iterator[Inequality]:
    first = _without_compared(arms[0].spec)
    paths = dict.fromkeys(found.path for arm in arms[1:] for found in diff(first, _without_compared(arm.spec)))
    for path in paths:
        yield _unequal(path, [(arm, _at(arm.spec, path)) for arm in arms])


def _without_compared(spec: Spec) -> Spec:
    """With the same in every field that may differ."""
    alike = {name: Spec.model_fields[name].default for name in (_COMPARED | CHANGES_NO_NUMBER) - {"name"}}
    execution = spec.execution.model_copy(update=PLACES)
    return spec.model_copy(update={**alike, "name": "arm", "execution": execution})


def _at(spec: Spec, path: str) -> Any:
    value: Any = spec.model_dump(mode="json")
    for key in path.split("."):
        value = value.get(key, "absent") if isinstance(value, dict) else "absent"
    return value


def _in_features(arms: Sequence[Arm]) -> Iterator[Inequality]:
    """Where arms of different fusion read different features, and where a control reads those of no real arm."""
    fused = [arm for arm in arms if arm.spec.read_features]
    real = [arm for arm in fused if not is_control(arm.spec)]
    paths: dict[str, None] = {}
    for one, other in combinations(real, 2):
        if one.spec.fusion != other.spec.fusion:
            paths |= dict.fromkeys(_unlike_features(one.spec, other.spec))
    for control in (arm for arm in fused if is_control(arm.spec)):
        unlike = [_unlike_features(control.spec, arm.spec) for arm in real]
        if unlike and all(unlike):
            fewest = min(unlike, key=len)
            paths |= dict.fromkeys(fewest)
    for path in paths:
        yield _unequal(path, [(arm, _at(arm.spec, path)) for arm in fused])


def _unlike_features(one: Spec, other: Spec) -> list[str]:
    """Paths in which the features differ, but those that make an arm a control: ``control``, and random weights."""
    controls = ["features.control"]
    if any(spec.read_features and isinstance(spec.read_features.weights, SeededWeights) for spec in (one, other)):
        controls.append("features.weights")
    paths = [found.path for found in diff(one, other) if _covers("features", found.path)]
    return [path for path in paths if not any(_covers(name, path) for name in controls)]


def _in_facts(arms: Sequence[Arm]) -> Iterator[Inequality]:
    for field, fact in FACTS.items():
        unequal = _unequal_runs(field, fact, [(arm, run) for arm in arms for run in arm.runs])
        if len(unequal.values) > 1:
            yield unequal
    sources: dict[str, list[Arm]] = defaultdict(list)
    engines: dict[str, list[Arm]] = defaultdict(list)
    for arm in arms:
        engines[arm.spec.execution.engine].append(arm)
        if features := arm.spec.read_features:
            sources[f"{features.source} {features.weights}"].append(arm)
    for facts, alike in ((FEATURE_FACTS, sources), (ENGINE_FACTS, engines)):
        for field, fact in facts.items():
            each = [[(arm, run) for arm in named for run in arm.runs] for named in alike.values()]
            unlike = [pair for pairs in each if len({fact(run) for _, run in pairs}) > 1 for pair in pairs]
            if unlike:
                yield _unequal_runs(field, fact, unlike)


def _in_looks(arms: Sequence[Arm]) -> Iterator[Inequality]:
    """Looks that were planned up to different numbers of seeds: p accounts for one plan."""
    unequal = _unequal("max_seeds", [(arm, most) for arm in arms for most in arm.max_seeds])
    if len(unequal.values) > 1:
        yield unequal


def _unequal(field: str, values: Sequence[tuple[Arm, Any]]) -> Inequality:
    by_value: dict[str, dict[str, None]] = {}
    for arm, value in values:
        by_value.setdefault(_shown(value), {})[arm.label] = None
    return Inequality(field=field, values=tuple((value, tuple(labels)) for value, labels in by_value.items()))


def _unequal_runs(field: str, fact: Fact, runs: Sequence[tuple[Arm, ArmRun]]) -> Inequality:
    by_value: dict[str, dict[str, list[int]]] = {}
    for arm, run in runs:
        by_value.setdefault(fact(run), {}).setdefault(arm.label, []).append(run.seed)
    values_of = Counter(label for seeds in by_value.values() for label in seeds)
    values = [
        (value, tuple(label + (_of_seeds(of_arm) if values_of[label] > 1 else "") for label, of_arm in seeds.items()))
        for value, seeds in by_value.items()
    ]
    return Inequality(field=field, values=tuple(values))


def _of_seeds(seeds: Sequence[int]) -> str:
    return f" (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))})"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
