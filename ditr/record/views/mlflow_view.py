"""MLflow as a view of run folders: one experiment a data set, a parent run a spec, a child run a seed."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ditr.record.folder import RunFolder, RunState

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_TAG = "mlflow.parentRunId"
FINAL = "final/"
"""Prefix of results: a run's own, and in its parent the means over the seeds that finished."""
VIEW = "ditr"
"""Key of the view of an experiment that shows the results of its arms as columns."""
_STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_WORST_FIRST = ("FAILED", "RUNNING", "KILLED", "FINISHED")
_SHOWN = [
    *(f"metrics.`{FINAL}{name}`" for name in ("ap50", "ap", "ap25", "wall_s")),
    *(f"params.`{name}`" for name in ("gate", "scales", "epochs", "seed")),
]
_EXPERIMENT_TAGS = {
    # Makes the UI show what it has for training rather than for language models.
    "mlflow.experimentKind": "custom_model_development",
    f"mlflow.sharedViewState.{VIEW}": json.dumps(
        {"selectedColumns": _SHOWN, "orderByKey": "attributes.start_time", "orderByAsc": True}
    ),
}
_METRICS_A_CALL = 1000
_STAGES = {1: "features", 2: "projection", 3: "pyramid", 4: "injection"}
_RESULTS = ("ap", "ap50", "ap25", "ap_to_90", "ap_to_95", "step_ms", "infer_ms", "peak_mem_mb", "params_m")


def store_uri(runs: Path) -> str:
    """Address of the MLflow store of a runs folder."""
    return f"sqlite:///{runs / 'mlflow.db'}"


def pages(runs: Path) -> dict[str, str]:
    """By name of experiment, newest first, the part of the UI's address that shows its arms with their results."""
    client = _client(runs)
    query = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    wanted = f"tags.`mlflow.sharedViewState.{VIEW}` LIKE '%'"
    found = client.search_experiments(filter_string=wanted, order_by=["last_update_time DESC"])
    return {experiment.name: f"#/experiments/{experiment.experiment_id}/runs?{query}" for experiment in found}


class MlflowTracker:
    """Follows one run. Everything sent is read from its folder, so that sending again adds nothing twice."""

    def __init__(
        self, folder: RunFolder, *, dataset: str, dataset_digest: str | None = None, dataset_root: Path | None = None
    ) -> None:
        self.folder = folder
        self.dataset = dataset
        self.dataset_digest = dataset_digest
        self.dataset_root = dataset_root
        self._runs = folder.path.parent
        self._rows_sent = 0

    def start(self, state: RunState, *, params: Mapping[str, Any]) -> str:
        """Makes the run, or goes on with the one that ``state`` names; returns MLflow's id of it.

        Parameters
        ----------
        params: about 20 headline parameters, None for what the run has not; the whole spec is an artefact.
        """
        given = {name: str(value) for name, value in params.items() if value is not None}
        self._client = _client(self._runs)
        with _lock(self._runs):
            experiment = self._experiment()
            self._parent = self._find_parent(experiment, state) or self._create_parent(experiment, state, params=given)
        self.run_id = self._continue(state) or self._create(experiment, state, params=given)
        self._sum_up(experiment)
        self._client.log_artifact(self.run_id, str(self.folder.spec))
        self._client.log_artifact(self.run_id, str(self.folder.provenance))
        self._monitor = self._start_monitor()
        return self.run_id

    def sync(self) -> None:
        """Sends the metrics logged since the last call."""
        from mlflow.entities import Metric

        rows = list(self.folder.logged())
        metrics = [
            Metric(name, value, int(row["at"] * 1000), row["step"])
            for row in rows[self._rows_sent :]
            for name, value in row["metrics"].items()
        ]
        for first in range(0, len(metrics), _METRICS_A_CALL):
            self._client.log_batch(self.run_id, metrics=metrics[first : first + _METRICS_A_CALL])
        self._rows_sent = len(rows)

    def finish(self, state: RunState) -> None:
        """Sends what is left, the result and the pictures, and closes the run with its state."""
        self._monitor.finish()
        self.sync()
        self._client.set_tag(self.run_id, "ditr.state", state.state)
        if state.error:
            self._client.set_tag(self.run_id, "ditr.error", state.error[:500])
        if state.state == "finished":
            self._send_result(wall_s=state.wall_s)
        self._client.set_terminated(self.run_id, status=_STATUS[state.state])
        self._sum_up(self._client.get_run(self.run_id).info.experiment_id)

    def publish(self, state: RunState, *, params: Mapping[str, Any]) -> str:
        """Makes the run of a folder that is complete and no training of ours, in place of all made of its key before.

        It has no parent, and nobody watches the machine; what the folder does not say of the data set is left out.
        """
        self._client = _client(self._runs)
        with _lock(self._runs):
            experiment = self._experiment()
            self._delete(state.run_key)
        tags = _tags(self.folder, state) | _tags_of_run(self.folder, state)
        started = _milliseconds(state.started_at)
        run = self._client.create_run(experiment, start_time=started, tags=tags, run_name=self.folder.path.name)
        self.run_id = str(run.info.run_id)
        self._log_params(self.run_id, {name: str(value) for name, value in params.items() if value is not None})
        self._client.log_artifact(self.run_id, str(self.folder.provenance))
        if self.folder.spec.is_file():
            self._client.log_artifact(self.run_id, str(self.folder.spec))
        if self.dataset_root is not None:
            self._log_dataset(self.run_id)
        self.sync()
        self._client.set_tag(self.run_id, "ditr.state", state.state)
        self._send_result(wall_s=state.wall_s)
        self._send_checks()
        ended = _milliseconds(state.ended_at) if state.ended_at else None
        self._client.set_terminated(self.run_id, status=_STATUS[state.state], end_time=ended)
        return self.run_id

    def _delete(self, run_key: str) -> None:
        everywhere = [experiment.experiment_id for experiment in self._client.search_experiments()]
        for run in self._client.search_runs(everywhere, f"tags.`ditr.run_key` = '{run_key}'"):
            self._client.delete_run(run.info.run_id)

    def _send_result(self, *, wall_s: float | None) -> None:
        self._client.log_artifact(self.run_id, str(self.folder.result))
        result = json.loads(self.folder.result.read_text())
        final = {name: result.get(name) for name in _RESULTS} | {"wall_s": wall_s}
        for name, value in final.items():
            if value is not None:
                self._client.log_metric(self.run_id, f"{FINAL}{name}", value)
        if self.folder.panels.is_dir():
            self._client.log_artifacts(self.run_id, str(self.folder.panels), "panels")

    def _send_checks(self) -> None:
        """A metric a check, ``check/<stage>/<name>``: its value, or 1 and 0 for yes and no."""
        from mlflow.entities import Metric

        if not self.folder.checks.is_file():
            return
        self._client.log_artifact(self.run_id, str(self.folder.checks))
        rows = [json.loads(line) for line in self.folder.checks.read_text().splitlines()]
        failed = sum(not row["passed"] for row in rows)
        values = {
            f"check/{_STAGES[row['stage']]}/{row['name']}": float(
                row["passed"] if row["value"] is None else row["value"]
            )
            for row in rows
        }
        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, 0) for name, value in (values | {"check/failed": float(failed)}).items()]
        for first in range(0, len(metrics), _METRICS_A_CALL):
            self._client.log_batch(self.run_id, metrics=metrics[first : first + _METRICS_A_CALL])
        self._client.set_tag(self.run_id, "ditr.failed_checks", str(failed))

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.dataset)
        if found is not None:
            return str(found.experiment_id)
        artefacts = (self._runs / "mlartifacts").as_uri()
        return str(self._client.create_experiment(self.dataset, artifact_location=artefacts, tags=_EXPERIMENT_TAGS))

    def _find_parent(self, experiment: str, state: RunState) -> str | None:
        wanted = f"tags.`ditr.level` = 'spec' and tags.`ditr.spec_hash` = '{state.spec_hash}'"
        found = self._client.search_runs([experiment], wanted, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _create_parent(self, experiment: str, state: RunState, *, params: Mapping[str, str]) -> str:
        tags = _tags(self.folder, state) | {"ditr.level": "spec"}
        run_id = str(self._client.create_run(experiment, tags=tags, run_name=state.name).info.run_id)
        self._log_params(run_id, {name: value for name, value in params.items() if name != "seed"})
        return run_id

    def _sum_up(self, experiment: str) -> None:
        """Gives the parent the status of its seeds together, and the means of the results of those that finished."""
        with _lock(self._runs):
            wanted = f"tags.`{PARENT_TAG}` = '{self._parent}'"
            found = self._client.search_runs([experiment], wanted, order_by=["attributes.start_time ASC"])
            seeds = {run.data.tags["ditr.run_key"]: run for run in found}.values()  # a seed that ran again counts once
            status = next(one for one in _WORST_FIRST if any(run.info.status == one for run in seeds))
            if status == "RUNNING":
                self._client.update_run(self._parent, status=status)
            else:
                self._client.set_terminated(self._parent, status=status)
            finished = [run.data.metrics for run in seeds if run.info.status == "FINISHED"]
            for name in sorted({name for metrics in finished for name in metrics if name.startswith(FINAL)}):
                values = [metrics[name] for metrics in finished if name in metrics]
                self._client.log_metric(self._parent, name, fmean(values))
            if finished:
                self._client.log_metric(self._parent, f"{FINAL}seeds", len(finished))

    def _continue(self, state: RunState) -> str | None:
        from mlflow.exceptions import MlflowException

        if state.mlflow_run is None:
            return None
        try:
            self._client.update_run(state.mlflow_run, status="RUNNING")
        except MlflowException:
            # The store was deleted since: the run gets a new entry, made from the folder.
            return None
        self._rows_sent = self._rows_known(state.mlflow_run)
        return state.mlflow_run

    def _rows_known(self, run_id: str) -> int:
        """How many leading rows of metrics.jsonl the store holds already."""
        known: dict[str, set[int]] = {}
        for count, row in enumerate(self.folder.logged()):
            for name in row["metrics"]:
                if name not in known:
                    known[name] = {metric.step for metric in self._client.get_metric_history(run_id, name)}
                if row["step"] not in known[name]:
                    return count
        return sum(1 for _ in self.folder.logged())

    def _create(self, experiment: str, state: RunState, *, params: Mapping[str, str]) -> str:
        tags = _tags(self.folder, state) | _tags_of_run(self.folder, state) | {PARENT_TAG: self._parent}
        run = self._client.create_run(experiment, tags=tags, run_name=f"{state.name}-s{state.seed}")
        run_id = str(run.info.run_id)
        self._log_params(run_id, params)
        self._log_dataset(run_id)
        return run_id

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])

    def _log_dataset(self, run_id: str) -> None:
        from mlflow.entities import Dataset as MlflowDataset
        from mlflow.entities import DatasetInput, InputTag

        assert self.dataset_digest is not None, "a run reads a data set"
        assert self.dataset_root is not None, "a run reads a data set"
        dataset = MlflowDataset(
            name=self.dataset,
            digest=self.dataset_digest[:36],
            source_type="local",
            source=json.dumps({"uri": self.dataset_root.as_uri()}),
            schema=None,
            profile=None,
        )
        tag = InputTag(key="mlflow.data.context", value="train and val")
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset=dataset, tags=[tag])])

    def _start_monitor(self) -> Any:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, tracking_uri=store_uri(self._runs))  # type: ignore[no-untyped-call]
        monitor.start()  # type: ignore[no-untyped-call]
        return monitor


def _tags(folder: RunFolder, state: RunState) -> dict[str, str]:
    """What a run and its parent are found by; the names with ``mlflow.`` fill columns of the UI."""
    provenance = json.loads(folder.provenance.read_text())
    return {
        "ditr.spec_hash": state.spec_hash,
        "ditr.kind": state.kind,
        "ditr.variant": state.variant,
        "mlflow.source.name": str(provenance.get("spec") or provenance.get("source", "unknown")),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": str((provenance["git"] or {}).get("commit", "unknown")),
    }


def _tags_of_run(folder: RunFolder, state: RunState) -> dict[str, str]:
    return {
        "ditr.level": "run",
        "ditr.run_key": state.run_key,
        "ditr.state": "running",
        "ditr.folder": folder.path.name,
    }


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def _client(runs: Path) -> MlflowClient:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    runs.mkdir(parents=True, exist_ok=True)
    with _lock(runs):
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        client = MlflowClient(store_uri(runs))
        client.get_experiment_by_name("")  # the first touch creates or migrates the database
    return client


def _lock(runs: Path) -> FileLock:
    # Creating the database from several processes at once crashes all but one.
    return FileLock(runs / ".mlflow.lock")
