"""MLflow's run of one record: made, continued, and brought to what the record's folder says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ditr.record.metrics import METRICS, SCORES
from ditr.record.views.mlflow_store import OWNER, MlflowStore, owned
from ditr.record.views.rows import standing
from ditr.record.views.tracked import TrackedRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_TAG = "mlflow.parentRunId"
FINAL = "final/"
"""Prefix of results: a run's own, and in its parent the means over the seeds that finished."""
VIEW = "ditr"
"""Key of the view of an experiment that shows the results of its arms as columns."""
_STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_SHOWN = [
    *(f"metrics.`{FINAL}{name}`" for name in (*SCORES, "wall_s")),
    *(f"params.`{name}`" for name in ("gate", "scales", "epochs", "seed")),
]
_EXPERIMENT_TAGS = {
    # Makes the UI show what it has for training rather than for language models.
    "mlflow.experimentKind": "custom_model_development",
    f"mlflow.sharedViewState.{VIEW}": json.dumps(
        {"selectedColumns": _SHOWN, "orderByKey": "attributes.start_time", "orderByAsc": True}
    ),
}
FOLDER, STAMP, SENT = "ditr.folder", "ditr.stamp", "ditr.sent"
"""Tags of a run: its record, how that was when it was last read, and which of its metrics MLflow has."""
_METRICS_A_CALL = 1000
_RESULTS = tuple(metric.name for metric in METRICS if metric.group in ("score", "cost"))


@dataclass(frozen=True)
class KnownRun:
    """What MLflow has of a record."""

    run_id: str
    experiment: str
    parent: str | None
    stamp: str | None
    sent: str | None


@dataclass(frozen=True)
class RunWriter:
    """Brings MLflow's run of one record to what its folder says."""

    client: MlflowClient
    store: MlflowStore
    record: TrackedRecord

    def tell(self, known: KnownRun | None) -> tuple[str, str] | None:
        """Returns experiment and parent if the parent's sums may have changed."""
        if known is not None and known.stamp == self.record.stamp:
            return None
        rows = list(self.record.folder.logged())
        sent = _sent_rows(known.sent if known else None)
        if known is not None and (sent > len(rows) or known.sent != _sent_mark(rows[:sent])):
            delete_with_files(self.client, self.store, known.run_id)  # a resumed training took back what it had logged
            known, sent = None, 0
        experiment = known.experiment if known else self._experiment()
        parent = known.parent if known else self._parent(experiment)
        run_id = known.run_id if known else self._create(experiment, parent)
        self._send_metrics(run_id, rows[sent:])
        self.client.set_tag(run_id, SENT, _sent_mark(rows))
        self._send_files(run_id)
        self._close(run_id)
        return (experiment, parent) if parent is not None else None

    def _experiment(self) -> str:
        name = self.record.dataset
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        where = self.store.artefacts
        return str(self.client.create_experiment(name, artifact_location=where, tags=_EXPERIMENT_TAGS))

    def _parent(self, experiment: str) -> str | None:
        """Of the runs of one spec; nothing else has one."""
        record, state = self.record, self.record.state
        if state.kind != "run":
            return None
        wanted = owned(self.store, "tags.`ditr.level` = 'spec'", f"tags.`ditr.spec_hash` = '{state.spec_hash}'")
        found = self.client.search_runs([experiment], wanted, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = self._tags() | {"ditr.level": "spec"}
        run_id = str(self.client.create_run(experiment, tags=tags, run_name=state.name).info.run_id)
        self._log_params(run_id, {name: value for name, value in record.params.items() if name != "seed"})
        return run_id

    def _create(self, experiment: str, parent: str | None) -> str:
        record, state = self.record, self.record.state
        tags = self._tags() | {
            "ditr.level": "run",
            "ditr.run_key": state.run_key,
            FOLDER: record.folder.name,
            **({PARENT_TAG: parent} if parent is not None else {}),
        }
        run = self.client.create_run(
            experiment, start_time=_milliseconds(state.started_at), tags=tags, run_name=record.run_name
        )
        run_id = str(run.info.run_id)
        self._log_params(run_id, record.params)
        self._log_dataset(run_id)
        return run_id

    def _tags(self) -> dict[str, str]:
        owner = self.store.owner
        return self.record.tags() | ({} if owner is None else {OWNER: owner})

    def _send_metrics(self, run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(row["at"] * 1000), row["step"])
            for row in rows
            for name, value in row["metrics"].items()
        ]
        for first in range(0, len(metrics), _METRICS_A_CALL):
            self.client.log_batch(run_id, metrics=metrics[first : first + _METRICS_A_CALL])

    def _send_files(self, run_id: str) -> None:
        record, folder = self.record, self.record.folder
        self.store.sweep_files(run_id)
        for file in (folder.spec, folder.provenance, folder.result, folder.checks):
            if file.is_file():
                self.client.log_artifact(run_id, str(file))
        for file in sorted(folder.panels.glob("[!.]*")):  # what is hidden is being drawn
            self.client.log_artifact(run_id, str(file), "panels")
        final = {f"{FINAL}{name}": record.result.get(name) for name in _RESULTS} if record.result else {}
        if final:
            final |= {f"{FINAL}wall_s": record.state.wall_s}
        self._send_values(run_id, final | record.check_values())

    def _send_values(self, run_id: str, values: Mapping[str, float | None]) -> None:
        from mlflow.entities import Metric

        at = _milliseconds(self.record.state.ended_at or self.record.state.started_at)
        metrics = [Metric(name, float(value), at, 0) for name, value in values.items() if value is not None]
        for first in range(0, len(metrics), _METRICS_A_CALL):
            self.client.log_batch(run_id, metrics=metrics[first : first + _METRICS_A_CALL])

    def _close(self, run_id: str) -> None:
        """Its status, and last of all that it was told: if this is not reached, it is told again."""
        record, state = self.record, self.record.state
        shown = standing(record.folder, state)
        self.client.set_tag(run_id, "ditr.state", shown)
        if state.error:
            self.client.set_tag(run_id, "ditr.error", state.error[:500])
        if "failed_checks" in record.result:
            self.client.set_tag(run_id, "ditr.failed_checks", str(record.result["failed_checks"]))
        if shown == "running":
            self.client.update_run(run_id, status=_STATUS[shown])
        else:
            ended = _milliseconds(state.ended_at) if state.ended_at else None
            self.client.set_terminated(run_id, status=_STATUS[shown], end_time=ended)
        self.client.set_tag(run_id, STAMP, record.stamp)

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        self.client.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])

    def _log_dataset(self, run_id: str) -> None:
        from mlflow.entities import Dataset as MlflowDataset
        from mlflow.entities import DatasetInput, InputTag

        if self.record.dataset_digest is None or self.record.dataset_root is None:
            return  # no log of another program tells it
        dataset = MlflowDataset(
            name=self.record.dataset,
            digest=self.record.dataset_digest[:36],
            source_type="local",
            source=json.dumps({"uri": self.record.dataset_root}),
            schema=None,
            profile=None,
        )
        tag = InputTag(key="mlflow.data.context", value="train and val")
        self.client.log_inputs(run_id, datasets=[DatasetInput(dataset=dataset, tags=[tag])])


def delete_with_files(client: MlflowClient, store: MlflowStore, run_id: str) -> None:
    """The run and its files, which MLflow would leave."""
    client.delete_run(run_id)
    store.remove_files(run_id)


def _sent_mark(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many rows of metrics.jsonl there are, and when the last one was logged: again, it is at another time."""
    return f"{len(rows)} {rows[-1]['at']}" if rows else "0"


def _sent_rows(mark: str | None) -> int:
    return int((mark or "0").partition(" ")[0])


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)
