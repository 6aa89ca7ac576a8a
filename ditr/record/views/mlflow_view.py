"""MLflow as a view of the records: one experiment a data set, a parent run a spec, a child run a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ditr.errors import Code, DitrError, in_short
from ditr.record.folder import Record, records_in
from ditr.record.state import UnreadableRecord
from ditr.record.views.mlflow_run import (
    FINAL,
    FOLDER,
    PARENT_TAG,
    SENT,
    STAMP,
    VIEW,
    KnownRun,
    RunWriter,
    delete_with_files,
)
from ditr.record.views.mlflow_store import (
    MlflowStore,
    StoreError,
    client_of,
    owned,
    store_of,
    without_password,
)
from ditr.record.views.tracked import TrackedRecord, tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient

_WORST_FIRST = ("FAILED", "RUNNING", "KILLED", "FINISHED")
_LOCK_S = 30.0
"""Longest wait for another process of ditr, which tells the store what it did."""
_NAMED = 3
"""Records that an error names; of the others it says how many they are."""


class MlflowView:
    """MLflow's runs: everything in them is read from the records, so that they can be made again."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.store = store_of(runs)
        self.name = self.store.name

    def tell(self, folders: Sequence[Record]) -> None:
        """Makes or continues the runs of these records, as their folders are now; those unchanged are passed over."""
        wanted = [record for folder in folders if (record := tracked(folder)) is not None]
        if wanted:
            with self._client() as client:
                known: dict[str, KnownRun] = {}
                for record in wanted:
                    known |= _known(client, self.store, only=record.folder.name)
                _tell(client, self.store, wanted, known)

    def catch_up(self) -> None:
        """Tells it every record that changed since, and deletes the runs of those that are gone."""
        folders = records_in(self.runs)
        if not self.store.exists():
            self.tell(folders)
            return
        with self._client() as client:
            known = _known(client, self.store)
            _forget(client, self.store, known, kept={folder.name for folder in folders})
            told = {name: found.stamp for name, found in known.items()}
            behind = (folder for folder in folders if told.get(folder.name) != folder.stamp())
            wanted = [record for folder in behind if (record := tracked(folder)) is not None]
            _tell(client, self.store, wanted, known)

    def rebuild(self) -> int:
        """Makes the store anew from every record that is tracked; returns how many there are."""
        wanted = [record for folder in records_in(self.runs) if (record := tracked(folder)) is not None]
        if not wanted and not self.store.exists():
            return 0
        with self._lock():
            self.store.clear()
        with self._client() as client:
            _tell(client, self.store, wanted, {})
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
        with self._lock():
            self.store.require_usable()
            try:
                yield client_of(self.store)
            except DitrError:
                raise
            except Exception as error:  # of MLflow, which wraps what its database or its server said
                self.store.require_usable()
                if (why := self.store.explain(error)) is not None:
                    raise why from error
                raise

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.runs.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.runs / ".mlflow.lock", timeout=_LOCK_S)
        try:
            lock.acquire()
        except Timeout as error:
            what, fix = f"another process has been telling it for {_LOCK_S:.0f} s", "Wait for that"
            raise StoreError(what, code=Code.RUN, where=self.name, fix=fix) from error
        try:
            yield
        finally:
            lock.release()


def _tell(
    client: MlflowClient, store: MlflowStore, records: Sequence[TrackedRecord], known: Mapping[str, KnownRun]
) -> None:
    """One that MLflow does not take keeps it from none of the others; a DitrError at the end names it.

    A store that is not usable any more is asked for none of the others: each would wait for it anew.
    """
    parents: set[tuple[str, str]] = set()
    troubles: list[str] = []
    damaged: list[str] = []
    for record in records:
        name = record.folder.name
        try:
            parent = RunWriter(client, store, record).tell(known.get(name))
        except Exception as error:  # of a damaged file of the record, or a value that MLflow refuses
            store.require_usable()
            troubles.append(f"{name}: {without_password(in_short(error))}")
            damaged += [name] if isinstance(error, UnreadableRecord) else []
        else:
            parents |= {parent} if parent is not None else set()
    for experiment, parent_id in sorted(parents):
        _sum_up(client, experiment, parent_id)
    if troubles:
        more = (f"and {len(troubles) - _NAMED} more",) if len(troubles) > _NAMED else ()
        names = " ".join(damaged[:_NAMED])
        fix = f"Restore what is damaged, or remove such records: ditr rm {names}" if damaged else ""
        raise DitrError("; ".join((*troubles[:_NAMED], *more)), code=Code.RUN, where=store.name, fix=fix)


def _known(client: MlflowClient, store: MlflowStore, *, only: str | None = None) -> dict[str, KnownRun]:
    """By name of record, what MLflow has of it; ``only`` asks for one record."""
    wanted = owned(store, "tags.`ditr.level` = 'run'", *((f'tags.`{FOLDER}` = "{only}"',) if only else ()))
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


def _forget(client: MlflowClient, store: MlflowStore, known: Mapping[str, KnownRun], *, kept: set[str]) -> None:
    gone = [found for name, found in known.items() if name not in kept]
    for found in gone:
        delete_with_files(client, store, found.run_id)
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
