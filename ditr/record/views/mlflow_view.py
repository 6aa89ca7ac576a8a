"""MLflow as a view of the records: one experiment a data set, a parent run a spec, a child run a seed."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ditr.errors import Code, DitrError, in_short
from ditr.files import replacing
from ditr.record.folder import Record, records_in
from ditr.record.metrics import METRICS, SCORES
from ditr.record.views.rows import standing
from ditr.record.views.tracked import TrackedRecord, tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "mlflow.db"
PARENT_TAG = "mlflow.parentRunId"
FINAL = "final/"
"""Prefix of results: a run's own, and in its parent the means over the seeds that finished."""
VIEW = "ditr"
"""Key of the view of an experiment that shows the results of its arms as columns."""
_STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_WORST_FIRST = ("FAILED", "RUNNING", "KILLED", "FINISHED")
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
_FOLDER, _STAMP, _SENT = "ditr.folder", "ditr.stamp", "ditr.sent"
"""Tags of a run: its record, how that was when it was last read, and which of its metrics MLflow has."""
_METRICS_A_CALL = 1000
_RESULTS = tuple(metric.name for metric in METRICS if metric.group in ("score", "cost"))


def store_uri(runs: Path) -> str:
    """Address of the MLflow store of a runs folder."""
    return f"sqlite:///{runs / FILE}"


@dataclass(frozen=True)
class _KnownRun:
    """What MLflow has of a record."""

    run_id: str
    experiment: str
    parent: str | None
    stamp: str | None
    sent: str | None


class MlflowView:
    """``mlflow.db`` with ``mlartifacts/``: everything in it is read from the records, so that it can be made again."""

    name = FILE

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.path = runs / FILE

    def tell(self, folders: Sequence[Record]) -> None:
        """Makes or continues the runs of these records, as their folders are now; those unchanged are passed over."""
        wanted = [record for folder in folders if (record := tracked(folder)) is not None]
        if wanted:
            with self._client() as client:
                known: dict[str, _KnownRun] = {}
                for record in wanted:
                    known |= _known(client, only=record.folder.name)
                _tell(client, self.runs, wanted, known)

    def catch_up(self) -> None:
        """Tells it every record that changed since, and deletes the runs of those that are gone."""
        folders = records_in(self.runs)
        if not folders and not self.path.is_file():
            return
        wanted = [record for folder in folders if (record := tracked(folder)) is not None]
        if wanted or self.path.is_file():
            with self._client() as client:
                known = _known(client)
                _forget(client, self.runs, known, kept={folder.name for folder in folders})
                _tell(client, self.runs, wanted, known)

    def rebuild(self) -> int:
        """Makes the store anew from every record that is tracked; returns how many there are."""
        wanted = [record for folder in records_in(self.runs) if (record := tracked(folder)) is not None]
        if not wanted and not self.path.is_file():
            return 0
        with self._lock():
            _make_store(self.path)
            shutil.rmtree(_artefacts(self.runs), ignore_errors=True)
        with self._client() as client:
            _tell(client, self.runs, wanted, {})
        return len(wanted)

    def pages(self) -> dict[str, str]:
        """By name of experiment, newest first, the part of the UI's address that shows its arms with their results.

        Raises
        ------
        DitrError: the store cannot be opened.
        """
        query = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
        wanted = f"tags.`mlflow.sharedViewState.{VIEW}` LIKE '%'"
        with self._client() as client:
            found = client.search_experiments(filter_string=wanted, order_by=["last_update_time DESC"])
        return {experiment.name: f"#/experiments/{experiment.experiment_id}/runs?{query}" for experiment in found}

    @contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        """Of the store, made if there is none, while no other process writes there."""
        self.runs.mkdir(parents=True, exist_ok=True)
        with self._lock():
            _import_mlflow()
            from mlflow import MlflowClient

            if not self.path.is_file():
                _make_store(self.path)
            try:
                client = MlflowClient(store_uri(self.runs))
                client.get_experiment_by_name("")
            except Exception as error:  # whatever sqlite, sqlalchemy or alembic make of it
                raise DitrError(
                    f"MLflow cannot open its store: {in_short(error)}",
                    code=Code.RUN,
                    where=str(self.path),
                    fix="Make it anew from the records: ditr results rebuild",
                ) from error
            yield client

    def _lock(self) -> FileLock:
        return FileLock(self.runs / ".mlflow.lock")


def _import_mlflow() -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # Each connection is opened when it is needed: one that is kept would write to a store that was replaced since.
    os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
    import mlflow  # noqa: F401  (its loggers are there once it is imported)

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _make_store(path: Path) -> None:
    """An empty store in place of whatever is there; a process killed meanwhile leaves none half made."""
    _import_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with replacing(path) as beside:
        SqlAlchemyStore(f"sqlite:///{beside}", _artefacts(path.parent).as_uri())  # type: ignore[no-untyped-call]


def _artefacts(runs: Path) -> Path:
    return (runs / "mlartifacts").resolve()


def _tell(client: MlflowClient, runs: Path, records: Sequence[TrackedRecord], known: Mapping[str, _KnownRun]) -> None:
    """One that MLflow does not take keeps it from none of the others; a DitrError at the end names it."""
    parents: set[tuple[str, str]] = set()
    troubles: list[str] = []
    for record in records:
        name = record.folder.name
        try:
            parent = _Writer(client, runs, record).tell(known.get(name))
        except Exception as error:  # of a damaged file of the record, or a value that MLflow refuses
            troubles.append(f"{name}: {in_short(error)}")
        else:
            parents |= {parent} if parent is not None else set()
    for experiment, parent_id in sorted(parents):
        _sum_up(client, experiment, parent_id)
    if troubles:
        raise DitrError("; ".join(troubles), code=Code.RUN, where=str(runs))


def _known(client: MlflowClient, *, only: str | None = None) -> dict[str, _KnownRun]:
    """By name of record, what MLflow has of it; ``only`` asks for one record."""
    wanted = "tags.`ditr.level` = 'run'" + (f" and tags.`{_FOLDER}` = '{only}'" if only else "")
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    found: dict[str, _KnownRun] = {}
    token: str | None = ""
    while token is not None:
        page = client.search_runs(everywhere, wanted, page_token=token or None)
        for run in page:
            tags = run.data.tags
            known = _KnownRun(
                run_id=run.info.run_id,
                experiment=run.info.experiment_id,
                parent=tags.get(PARENT_TAG),
                stamp=tags.get(_STAMP),
                sent=tags.get(_SENT),
            )
            if tags.get(_FOLDER, "") in found:  # made by an earlier version, of a record that was replaced since
                client.delete_run(known.run_id)
            else:
                found[tags.get(_FOLDER, "")] = known
        token = page.token
    return found


def _forget(client: MlflowClient, runs: Path, known: Mapping[str, _KnownRun], *, kept: set[str]) -> None:
    gone = [found for name, found in known.items() if name not in kept]
    for found in gone:
        _delete(client, runs, found.run_id)
    for experiment, parent in {(found.experiment, found.parent) for found in gone if found.parent is not None}:
        _sum_up(client, experiment, parent)


def _delete(client: MlflowClient, runs: Path, run_id: str) -> None:
    """The run and its files, which MLflow would leave."""
    client.delete_run(run_id)
    shutil.rmtree(_artefacts(runs) / run_id, ignore_errors=True)


@dataclass(frozen=True)
class _Writer:
    """Brings MLflow's run of one record to what its folder says."""

    client: MlflowClient
    runs: Path
    record: TrackedRecord

    def tell(self, known: _KnownRun | None) -> tuple[str, str] | None:
        """Returns experiment and parent if the parent's sums may have changed."""
        if known is not None and known.stamp == self.record.stamp:
            return None
        rows = list(self.record.folder.logged())
        sent = _sent_rows(known.sent if known else None)
        if known is not None and (sent > len(rows) or known.sent != _sent_mark(rows[:sent])):
            _delete(self.client, self.runs, known.run_id)  # a resumed training took back what it had logged
            known, sent = None, 0
        experiment = known.experiment if known else self._experiment()
        parent = known.parent if known else self._parent(experiment)
        run_id = known.run_id if known else self._create(experiment, parent)
        self._send_metrics(run_id, rows[sent:])
        self._send_files(run_id)
        self._close(run_id, sent=_sent_mark(rows))
        return (experiment, parent) if parent is not None else None

    def _experiment(self) -> str:
        name = self.record.dataset
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        where = _artefacts(self.runs).as_uri()
        return str(self.client.create_experiment(name, artifact_location=where, tags=_EXPERIMENT_TAGS))

    def _parent(self, experiment: str) -> str | None:
        """Of the runs of one spec; nothing else has one."""
        record, state = self.record, self.record.state
        if state.kind != "run":
            return None
        wanted = f"tags.`ditr.level` = 'spec' and tags.`ditr.spec_hash` = '{state.spec_hash}'"
        found = self.client.search_runs([experiment], wanted, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = record.tags() | {"ditr.level": "spec"}
        run_id = str(self.client.create_run(experiment, tags=tags, run_name=state.name).info.run_id)
        self._log_params(run_id, {name: value for name, value in record.params.items() if name != "seed"})
        return run_id

    def _create(self, experiment: str, parent: str | None) -> str:
        record, state = self.record, self.record.state
        tags = record.tags() | {
            "ditr.level": "run",
            "ditr.run_key": state.run_key,
            _FOLDER: record.folder.name,
            **({PARENT_TAG: parent} if parent is not None else {}),
        }
        run = self.client.create_run(
            experiment, start_time=_milliseconds(state.started_at), tags=tags, run_name=record.run_name
        )
        run_id = str(run.info.run_id)
        self._log_params(run_id, record.params)
        self._log_dataset(run_id)
        return run_id

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
        for file in (folder.spec, folder.provenance, folder.result, folder.checks):
            if file.is_file():
                self.client.log_artifact(run_id, str(file))
        if folder.panels.is_dir():
            self.client.log_artifacts(run_id, str(folder.panels), "panels")
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

    def _close(self, run_id: str, *, sent: str) -> None:
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
        self.client.set_tag(run_id, _SENT, sent)
        self.client.set_tag(run_id, _STAMP, record.stamp)

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
            source=json.dumps({"uri": Path(self.record.dataset_root).resolve().as_uri()}),
            schema=None,
            profile=None,
        )
        tag = InputTag(key="mlflow.data.context", value="train and val")
        self.client.log_inputs(run_id, datasets=[DatasetInput(dataset=dataset, tags=[tag])])


def _sum_up(client: MlflowClient, experiment: str, parent: str) -> None:
    """Gives the parent the status of its seeds together, and the means of the results of those that finished."""
    found = client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{parent}'")
    if not found:
        client.delete_run(parent)
        return
    status = next(one for one in _WORST_FIRST if any(run.info.status == one for run in found))
    if status == "RUNNING":
        client.update_run(parent, status=status)
    else:
        client.set_terminated(parent, status=status)
    finished = [run.data.metrics for run in found if run.info.status == "FINISHED"]
    for name in sorted({name for metrics in finished for name in metrics if name.startswith(FINAL)}):
        client.log_metric(parent, name, fmean(metrics[name] for metrics in finished if name in metrics))
    if finished:
        client.log_metric(parent, f"{FINAL}seeds", len(finished))


def _sent_mark(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many rows of metrics.jsonl there are, and when the last one was logged: again, it is at another time."""
    return f"{len(rows)} {rows[-1]['at']}" if rows else "0"


def _sent_rows(mark: str | None) -> int:
    return int((mark or "0").partition(" ")[0])


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)
