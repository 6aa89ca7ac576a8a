"""MLflow as a view of the records: one experiment a data set, a parent run a spec, a child run a seed."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from filelock import FileLock

from ditr.errors import Code, DitrError, in_short
from ditr.files import replacing
from ditr.record.folder import Record, records_in
from ditr.record.views.mlflow_run import (
    FINAL,
    FOLDER,
    PARENT_TAG,
    SENT,
    STAMP,
    VIEW,
    KnownRun,
    RunWriter,
    artefacts_of,
    delete_with_files,
)
from ditr.record.views.tracked import TrackedRecord, tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "mlflow.db"
_WORST_FIRST = ("FAILED", "RUNNING", "KILLED", "FINISHED")


def store_uri(runs: Path) -> str:
    """Address of the MLflow store of a runs folder."""
    return f"sqlite:///{runs / FILE}"


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
                known: dict[str, KnownRun] = {}
                for record in wanted:
                    known |= _known(client, only=record.folder.name)
                _tell(client, self.runs, wanted, known)

    def catch_up(self) -> None:
        """Tells it every record that changed since, and deletes the runs of those that are gone."""
        folders = records_in(self.runs)
        if not self.path.is_file():
            self.tell(folders)
            return
        with self._client() as client:
            known = _known(client)
            _forget(client, self.runs, known, kept={folder.name for folder in folders})
            told = {name: found.stamp for name, found in known.items()}
            behind = (folder for folder in folders if told.get(folder.name) != folder.stamp())
            wanted = [record for folder in behind if (record := tracked(folder)) is not None]
            _tell(client, self.runs, wanted, known)

    def rebuild(self) -> int:
        """Makes the store anew from every record that is tracked; returns how many there are."""
        wanted = [record for folder in records_in(self.runs) if (record := tracked(folder)) is not None]
        if not wanted and not self.path.is_file():
            return 0
        with self._lock():
            _make_store(self.path)
            shutil.rmtree(artefacts_of(self.runs), ignore_errors=True)
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
    """An empty store in place of whatever is there; a process killed meanwhile leaves none half made. For who holds the
    lock."""
    _import_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with replacing(path, alone=True) as beside:
        SqlAlchemyStore(f"sqlite:///{beside}", artefacts_of(path.parent).as_uri())  # type: ignore[no-untyped-call]


def _tell(client: MlflowClient, runs: Path, records: Sequence[TrackedRecord], known: Mapping[str, KnownRun]) -> None:
    """One that MLflow does not take keeps it from none of the others; a DitrError at the end names it."""
    parents: set[tuple[str, str]] = set()
    troubles: list[str] = []
    for record in records:
        name = record.folder.name
        try:
            parent = RunWriter(client, runs, record).tell(known.get(name))
        except Exception as error:  # of a damaged file of the record, or a value that MLflow refuses
            troubles.append(f"{name}: {in_short(error)}")
        else:
            parents |= {parent} if parent is not None else set()
    for experiment, parent_id in sorted(parents):
        _sum_up(client, experiment, parent_id)
    if troubles:
        raise DitrError("; ".join(troubles), code=Code.RUN, where=str(runs))


def _known(client: MlflowClient, *, only: str | None = None) -> dict[str, KnownRun]:
    """By name of record, what MLflow has of it; ``only`` asks for one record."""
    wanted = "tags.`ditr.level` = 'run'" + (f' and tags.`{FOLDER}` = "{only}"' if only else "")
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    found: dict[str, KnownRun] = {}
    token: str | None = ""
    while token is not None:
        page = client.search_runs(everywhere, wanted, page_token=token or None)
        for run in page:
            tags = run.data.tags
            known = KnownRun(
                run_id=run.info.run_id,
                experiment=run.info.experiment_id,
                parent=tags.get(PARENT_TAG),
                stamp=tags.get(STAMP),
                sent=tags.get(SENT),
            )
            if tags.get(FOLDER, "") in found:  # made by an earlier version, of a record that was replaced since
                client.delete_run(known.run_id)
            else:
                found[tags.get(FOLDER, "")] = known
        token = page.token
    return found


def _forget(client: MlflowClient, runs: Path, known: Mapping[str, KnownRun], *, kept: set[str]) -> None:
    gone = [found for name, found in known.items() if name not in kept]
    for found in gone:
        delete_with_files(client, runs, found.run_id)
    for experiment, parent in {(found.experiment, found.parent) for found in gone if found.parent is not None}:
        _sum_up(client, experiment, parent)


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
