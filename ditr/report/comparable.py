"""Whether arms differ in their fusion alone: what else differs is refused by name, or allowed and said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ditr.errors import Code, DitrError
from ditr.report.arms import Arm, ArmRun
from ditr.spec.diff import diff
from ditr.spec.identity import CHANGES_NO_NUMBER
from ditr.spec.models import Spec

_COMPARED = {"fusion", "features"}
"""What is compared: the fusion, and the 2D features that it reads."""
_PACKAGES = ("torch", "MinkowskiEngine", "numpy", "scipy", "timm")
"""Those that compute numbers of a run."""


@dataclass(frozen=True, kw_only=True)
class Unequal:
    """A field in which runs differ that should not."""

    field: str
    """What ``--allow`` calls it: a path of the spec, or one of the facts below."""
    values: tuple[tuple[str, tuple[str, ...]], ...]
    """Each value, and the labels of the arms that have it."""

    def __str__(self) -> str:
        each = "; ".join(f"{value} in {', '.join(labels)}" for value, labels in self.values)
        return f"{self.field}: {each}"


def caveats(arms: Sequence[Arm], *, allow: Sequence[str]) -> tuple[str, ...]:
    """What differs besides the fusion and is allowed, a sentence each.

    Parameters
    ----------
    allow: fields that may differ; ``schedule`` allows all of the schedule.

    Raises
    ------
    DitrError: something else differs, or ``allow`` names what does not.
    """
    found = [*_in_specs(arms), *_in_facts(arms)]
    refused = [unequal for unequal in found if not any(_covers(name, unequal.field) for name in allow)]
    if refused:
        options = " ".join(f"--allow {unequal.field}" for unequal in refused)
        each = "".join(f"\n    {unequal}" for unequal in refused)
        raise DitrError(
            f"these runs differ in more than their fusion, so a difference between them could be due to that:{each}",
            code=Code.RUN,
            fix=f"Run them alike, or accept it, which the output then says: {options}",
        )
    if idle := [name for name in allow if not any(_covers(name, unequal.field) for unequal in found)]:
        names = ", ".join(sorted(unequal.field for unequal in found)) or "nothing"
        fix = "Leave it out."
        raise DitrError(f"--allow {idle[0]}: the runs do not differ in it, but in {names}", code=Code.RUN, fix=fix)
    return tuple(f"Not alike, and allowed to be: {unequal}." for unequal in found)


def _covers(name: str, field: str) -> bool:
    return field == name or field.startswith(f"{name}.")


def _in_specs(arms: Sequence[Arm]) -> Iterator[Unequal]:
    first = _without_fusion(arms[0].spec)
    paths = dict.fromkeys(found.path for arm in arms[1:] for found in diff(first, _without_fusion(arm.spec)))
    for path in paths:
        yield _unequal(path, [(arm, _at(arm.spec, path)) for arm in arms])


def _without_fusion(spec: Spec) -> Spec:
    """With the same in every field that may differ."""
    alike = {name: Spec.model_fields[name].default for name in (_COMPARED | CHANGES_NO_NUMBER) - {"name"}}
    return spec.model_copy(update={**alike, "name": "arm"})


def _at(spec: Spec, path: str) -> Any:
    value: Any = spec.model_dump(mode="json")
    for key in path.split("."):
        value = value.get(key, "absent") if isinstance(value, dict) else "absent"
    return value


def _in_facts(arms: Sequence[Arm]) -> Iterator[Unequal]:
    for field, fact in _FACTS.items():
        unequal = _unequal(field, [(arm, fact(run)) for arm in arms for run in arm.runs])
        if len(unequal.values) > 1:
            yield unequal


def _unequal(field: str, values: Sequence[tuple[Arm, Any]]) -> Unequal:
    by_value: dict[str, dict[str, None]] = {}
    for arm, value in values:
        by_value.setdefault(_shown(value), {})[arm.label] = None
    return Unequal(field=field, values=tuple((value, tuple(labels)) for value, labels in by_value.items()))


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _code(run: ArmRun) -> str:
    """Runs of versions that did not note it are unlike every other."""
    code = run.provenance.get("code")
    return str(code)[:_DIGITS] if code else f"not noted by {run.folder.path.name}"


def _packages(run: ArmRun) -> str:
    installed = {name.lower(): version for name, version in run.provenance["packages"].items()}
    return ", ".join(f"{name} {installed.get(name.lower(), '-')}" for name in _PACKAGES)


def _weights(run: ArmRun) -> str:
    start = run.provenance["start_weights"]
    return start["sha256"][:_DIGITS] if start else "none"


_DIGITS = 12
_FACTS: dict[str, Callable[[ArmRun], Any]] = {
    "dataset_digest": lambda run: run.provenance["dataset"]["digest"],
    "split": lambda run: run.result["split"],
    "n_frames": lambda run: run.result["n_frames"],
    "excluded_frames": lambda run: run.result["excluded_frames"],
    "start_weights": _weights,
    "code": _code,
    "packages": _packages,
    "device": lambda run: run.result["device"],
}
"""What a spec does not say of a run: its data as read, the 3D weights as loaded, the code and where it ran."""
