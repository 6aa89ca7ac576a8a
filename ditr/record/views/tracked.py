"""What MLflow is told of a record, read from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ditr.errors import DitrError
from ditr.record.folder import Record
from ditr.record.state import RecordState, unreadable
from ditr.record.views.headline import headline
from ditr.spec.check_stages import STAGES

_OF_RESULT = ("split", "n_frames", "device")


@dataclass(frozen=True, kw_only=True)
class TrackedRecord:
    """A record that MLflow has a run of."""

    folder: Record
    stamp: str
    """Of the folder before it was read."""
    state: RecordState
    result: Mapping[str, Any]
    """Empty until there is one."""
    params: Mapping[str, str]
    dataset: str
    dataset_digest: str | None
    """None where nobody knows: in an imported log."""
    dataset_root: str | None
    source: str
    """The spec file, or the log."""
    commit: str

    @property
    def run_name(self) -> str:
        """In the UI: short for one seed of a spec, which stands below its name."""
        state = self.state
        return f"{state.name}-s{state.seed}" if state.kind == "run" else self.folder.name

    def tags(self) -> dict[str, str]:
        """What a run and its parent are found by; the names with ``mlflow.`` fill columns of the UI."""
        return {
            "ditr.spec_hash": self.state.spec_hash,
            "ditr.kind": self.state.kind,
            "ditr.variant": self.state.variant,
            "mlflow.source.name": self.source,
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": self.commit,
        }

    def check_values(self) -> dict[str, float]:
        """A value a check, ``check/<stage>/<name>``: what was measured, or 1 and 0 for yes and no."""
        if not self.folder.require_whole(self.folder.checks).is_file():
            return {}
        try:
            rows = [json.loads(line) for line in self.folder.checks.read_text().splitlines()]
            values = {
                f"check/{STAGES[row['stage']]}/{row['name']}": float(
                    row["passed"] if row["value"] is None else row["value"]
                )
                for row in rows
            }
            return values | {"check/failed": float(sum(not row["passed"] for row in rows))}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise unreadable(self.folder.checks, error) from error


def tracked(folder: Record) -> TrackedRecord | None:
    """None for a record that is not to be tracked, has not written where its numbers come from, or cannot be read."""
    stamp = folder.stamp()
    try:
        state, facts, result = folder.state(), folder.read_provenance(), folder.read_result()
        if state is None or facts is None:
            return None
        return (
            _of_log(folder, stamp, state, facts, result)
            if state.kind == "imported"
            else _of_spec(folder, stamp, state, facts, result)
        )
    except DitrError:
        return None


def _of_spec(
    folder: Record, stamp: str, state: RecordState, facts: Mapping[str, Any], result: Mapping[str, Any]
) -> TrackedRecord | None:
    spec = folder.read_spec()
    if not spec.tracking.mlflow:
        return None
    data = _part(folder, facts, "dataset")
    extra = {name: result.get(name) for name in _OF_RESULT if state.kind != "run" or name == "device"}
    extra |= {"device": facts.get("device"), "stages": ",".join(map(str, result.get("stages", []))) or None}
    seed = state.seed if state.kind == "run" else None
    return TrackedRecord(
        folder=folder,
        stamp=stamp,
        state=state,
        result=result,
        params=headline(spec, variant=state.variant, seed=seed, facts=extra),
        dataset=spec.dataset.name,
        dataset_digest=str(data["digest"]),
        dataset_root=str(data["root"]),
        source=str(facts.get("spec", "unknown")),
        commit=_commit(facts),
    )


def _of_log(
    folder: Record, stamp: str, state: RecordState, facts: Mapping[str, Any], result: Mapping[str, Any]
) -> TrackedRecord:
    says = {
        "variant": state.variant,
        "seed": state.seed,
        **{name: result.get(name) for name in ("dataset", "checkpoint", "epochs", "esam_compat", "device")},
        **_part(folder, facts, "params"),
    }
    return TrackedRecord(
        folder=folder,
        stamp=stamp,
        state=state,
        result=result,
        params={name: str(value) for name, value in says.items() if value is not None},
        dataset=str(result.get("dataset", "unknown")),
        dataset_digest=None,
        dataset_root=None,
        source=str(facts.get("source", "unknown")),
        commit=_commit(facts),
    )


def _part(folder: Record, facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = facts.get(name, {})
    if not isinstance(found, dict):
        raise unreadable(folder.provenance, ValueError(f"{name} is no object"))
    return found


def _commit(facts: Mapping[str, Any]) -> str:
    git = facts.get("git")
    return str(git.get("commit", "unknown")) if isinstance(git, dict) else "unknown"
