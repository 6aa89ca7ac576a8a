"""What a run's spec does not say of it and its numbers depend on: data and weights as read, code, packages, device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ditr.record.provenance import NUMERIC_PACKAGES, sessions
from ditr.report.arms import ArmRun
from ditr.spec.execution import engine_of
from ditr.spec.identity import canonical_json, without_prose
from ditr.spec.models import Engine

Fact = Callable[[ArmRun], str]
"""A fact of a run as text: equal where the runs are alike in it."""
_DIGITS = 12
_ENGINE_PACKAGES: Mapping[Engine, str] = {"minkowski": "MinkowskiEngine", "triton": "triton"}


def _digest(run: ArmRun) -> str:
    """Of the 2D source's weights, or of the maps where nobody said which weights made them."""
    features = _features(run)
    return str(features.get("maps_digest") or features.get("weights_digest") or _not_noted(run))


def _entry(run: ArmRun) -> str:
    """Of the registry's entry as it was: its mean and std are not in the weights."""
    entry = _features(run).get("entry")
    return _not_noted(run) if entry is None else _short(canonical_json(without_prose(entry)))


def _source_code(run: ArmRun) -> str:
    """Of a class of the user's, where the source is one."""
    return str(_features(run).get("code_digest", "none"))[:_DIGITS]


def _features(run: ArmRun) -> dict[str, Any]:
    return run.provenance.get("features") or {}


def _excluded(run: ArmRun) -> str:
    """How many frames, and a digest of which."""
    ids = run.provenance["dataset"].get("excluded_frames")
    if ids is None:
        return _not_noted(run)
    return f"{len(ids)} ({_short(' '.join(ids))})" if ids else "0"


def _start_weights(run: ArmRun) -> str:
    start = run.provenance["start_weights"]
    return start["sha256"][:_DIGITS] if start else "none"


def _code(run: ArmRun) -> str:
    return _of_sessions(run, lambda session: session["code"] and str(session["code"])[:_DIGITS])


def _packages(run: ArmRun) -> str:
    return _versions(run, [name for name in NUMERIC_PACKAGES if name not in _ENGINE_PACKAGES.values()])


def _engine_package(run: ArmRun) -> str:
    return _versions(run, [_ENGINE_PACKAGES[engine_of(run.spec)]])


def _versions(run: ArmRun, names: Sequence[str]) -> str:
    def of(packages: Mapping[str, str]) -> str:
        installed = {name.lower(): version for name, version in packages.items()}
        return ", ".join(f"{name} {installed.get(name.lower(), '-')}" for name in names)

    return _of_sessions(run, lambda session: session["packages"] and of(session["packages"]))


def _of_sessions(run: ArmRun, of: Callable[[Mapping[str, Any]], str | None]) -> str:
    """What all sessions of the training have. A training that changed it on its way is unlike every other, and so is
    one that did not note it."""
    found = list(dict.fromkeys(of(session) or _not_noted(run) for session in sessions(run.provenance)))
    return found[0] if len(found) == 1 else f"{', then '.join(found)} within {run.folder.path.name}"


def _not_noted(run: ArmRun) -> str:
    return f"not noted by {run.folder.path.name}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


FACTS: Mapping[str, Fact] = {
    "dataset_digest": lambda run: run.provenance["dataset"]["digest"],
    "intrinsics": lambda run: run.provenance["dataset"].get("intrinsics") or _not_noted(run),
    "split": lambda run: run.result["split"],
    "n_frames": lambda run: str(run.result["n_frames"]),
    "excluded_frames": _excluded,
    "start_weights": _start_weights,
    "code": _code,
    "packages": _packages,
    "device": lambda run: _of_sessions(run, lambda session: session["device"]),
}
"""By what ``--allow`` calls them; every run has them."""

ENGINE_FACTS: Mapping[str, Fact] = {"packages.engine": _engine_package}
"""The same, of runs that have the same engine."""

FEATURE_FACTS: Mapping[str, Fact] = {
    "features.digest": _digest,
    "features.entry": _entry,
    "features.code": _source_code,
}
"""The same, of runs that read 2D features."""
