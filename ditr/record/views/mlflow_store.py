"""Where MLflow keeps the runs: a SQLite file beside the records, or a server that somebody runs."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from ditr.errors import Code, DitrError, in_short
from ditr.files import replacing, write_text
from ditr.filesystems import require_own_disk
from ditr.machine_errors import causes
from ditr.paths import tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "mlflow.db"
OWNER_FILE = ".mlflow-owner"
"""In the folder of records: whose runs they are on a server that holds others too."""
_OWNER_TEXT = re.compile(r"(?P<owner>[0-9a-f]{32})(?: (?P<inode>[0-9]+))?")
_COPYING = ".artifact.uploading.*"
"""How MLflow names a file of a run that it is copying."""
_LOCKED_S = 5.0
"""Longest wait for another program that writes to the file."""
_SERVER_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""Seconds and repetitions of one request, in place of MLflow's 120 and 7; who sets them otherwise decides."""
_ANEW = "Make it anew from the records: ditr results rebuild"
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

_SILENT: tuple[tuple[type[OSError], str], ...] = (
    (ConnectionRefusedError, "connection refused"),
    (ConnectionError, "connection cut"),
    (socket.gaierror, "no machine of this name is known"),
    (TimeoutError, "no answer in time"),
)
"""Of an address where no server is, or one that hangs."""


class StoreError(DitrError):
    """The store cannot be used now: nothing of any record can be told to it."""


class MlflowStore(Protocol):
    """One of the two."""

    @property
    def uri(self) -> str:
        """Address for MLflow."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def owner(self) -> str | None:
        """What the runs of these records are marked with; None where no others are."""

    @property
    def artefacts(self) -> str | None:
        """Where the files of runs go, as a URI; None where the server decides."""

    def exists(self) -> bool:
        """Whether there may be something in it."""

    def require_usable(self) -> None:
        """Raises StoreError where it cannot be read and written now, after seconds."""

    def explain(self, error: BaseException) -> StoreError | None:
        """What an error of MLflow's says of the store; None if nothing."""

    def sweep_files(self, run_id: str) -> None:
        """Removes what a killed process left of a run's files that it was copying."""

    def remove_files(self, run_id: str) -> None:
        """Those of a deleted run, where MLflow would leave them."""

    def clear(self) -> None:
        """Empties it of all that is of these records; raises StoreError."""


def store_of(runs: Path) -> MlflowStore:
    """Of a folder of records: the server that MLFLOW_TRACKING_URI or the project names, or the file."""
    uri = tracking_uri()
    return LocalStore(runs) if uri is None else ServerStore(runs, uri)


class LocalStore:
    """``mlflow.db`` with ``mlartifacts/``."""

    owner = None

    def __init__(self, runs: Path) -> None:
        self.path = runs / FILE
        self.name = FILE
        self.uri = f"sqlite:///{self.path}"
        self._files = (runs / "mlartifacts").resolve()
        self.artefacts = self._files.as_uri()

    def exists(self) -> bool:
        return self.path.is_file()

    def require_usable(self) -> None:
        """Makes it where there is none. MLflow itself would try for minutes what cannot be opened."""
        self._require_own_disk()
        if not self.exists():
            self._make()
        with self._explaining(), closing(sqlite3.connect(self.path, timeout=_LOCKED_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            found = connection.execute(
                "SELECT m.name, c.name FROM sqlite_master m, pragma_table_xinfo(m.name) c WHERE m.type = 'table'"
            ).fetchall()
            versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            connection.rollback()
        if what := _mismatch(set(found), [version for (version,) in versions]):
            raise StoreError(what, code=Code.RUN, where=str(self.path), fix=_ANEW)

    def sweep_files(self, run_id: str) -> None:
        for left in (self._files / run_id).rglob(_COPYING):
            left.unlink(missing_ok=True)

    def remove_files(self, run_id: str) -> None:
        shutil.rmtree(self._files / run_id, ignore_errors=True)

    def clear(self) -> None:
        self._require_own_disk()
        self._make()
        shutil.rmtree(self._files, ignore_errors=True)

    def _require_own_disk(self) -> None:
        """(docs/reference/clusters.md, SQLite on shared disks)."""
        fix = 'Name a server, [tracking] mlflow = "http://HOST:PORT" in ditr.toml or MLFLOW_TRACKING_URI.'
        require_own_disk(self.path, what="SQLite damages itself on a disk that machines share", fix=fix)

    def _make(self) -> None:
        """An empty store in place of whatever is there; a process killed meanwhile leaves none half made. For who holds
        the lock."""
        with replacing(self.path, alone=True) as beside:
            try:
                migrate(beside, artefacts=self.artefacts)
            except Exception as error:  # of MLflow, which wraps what SQLite said
                if (why := self.explain(error)) is not None:
                    raise why from error
                raise
            for ending in ("-journal", "-wal", "-shm"):  # of the old file: SQLite would play them into the new one
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)

    def explain(self, error: BaseException) -> StoreError | None:
        found = next((one for one in causes(error) if isinstance(one, sqlite3.Error)), None)
        return None if found is None else self._explained(found)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> StoreError:
        kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without its subkind
        what, fix = f"is no store of MLflow's, or damaged: {error}", _ANEW
        if kind in _LOCKED:
            what, fix = "another program holds it locked", "End that"
        elif kind in _UNWRITABLE:
            what, fix = "it cannot be written", "Let it and its folder be written by you"
        elif kind in _FULL:
            what, fix = f"the disk does not take it: {error}", "Make room there"
        return StoreError(what, code=Code.RUN, where=str(self.path), fix=fix)


class ServerStore:
    """A server of MLflow's, which may hold runs of others."""

    artefacts = None

    def __init__(self, runs: Path, uri: str) -> None:
        self.uri = uri
        self.name = f"MLflow at {without_password(uri)}"
        self._owner_file = runs / OWNER_FILE

    @property
    def owner(self) -> str:
        """Made once for a folder of records, which may be renamed.

        A copy of it, or it on another disk, is another, and deletes no run of the one that it was made from.
        """
        inode = str(self._owner_file.parent.stat().st_ino)  # devices are numbered anew when they are mounted
        found = _OWNER_TEXT.fullmatch(self._owner_text())
        if found is None:  # it stands in filters of what is deleted
            fix = "Remove it, and the runs of these records on the server, which are told anew"
            raise StoreError("is not what ditr wrote", code=Code.RUN, where=str(self._owner_file), fix=fix)
        owner = found["owner"] if found["inode"] in (None, inode) else uuid.uuid4().hex
        if owner != found["owner"] or found["inode"] is None:  # earlier versions wrote no inode
            write_text(self._owner_file, f"{owner} {inode}\n")
        return owner

    def _owner_text(self) -> str:
        if not self._owner_file.is_file():
            return uuid.uuid4().hex
        return self._owner_file.read_text(errors="replace").strip()

    def exists(self) -> bool:
        return True

    def require_usable(self) -> None:
        if not _is_of_a_server(self.uri):
            what = "runs are tracked in mlflow.db beside them, or by a server of MLflow's; this is the address of none"
            fix = "Serve what it names: mlflow server --backend-store-uri ..., and give the server's address"
            raise StoreError(what, code=Code.ENVIRONMENT, where=without_password(self.uri), fix=fix)
        import_mlflow()
        from mlflow import MlflowClient

        try:
            MlflowClient(self.uri).search_experiments(max_results=1)
        except Exception as error:  # of sockets, of what answers there, or the server's own
            what = f"it does not answer as a server of MLflow's does: {without_password(in_short(error))}"
            raise self.explain(error) or self._unusable(what) from error

    def explain(self, error: BaseException) -> StoreError | None:
        reasons = (why for one in causes(error) for kind, why in _SILENT if isinstance(one, kind))
        why = next(reasons, None)
        return None if why is None else self._unusable(f"no server of MLflow's answers there ({why})")

    def _unusable(self, what: str) -> StoreError:
        fix = "Start it, or let MLFLOW_TRACKING_URI name one that runs"
        return StoreError(what, code=Code.RUN, where=without_password(self.uri), fix=fix)

    def sweep_files(self, run_id: str) -> None:
        """They are the server's."""

    def remove_files(self, run_id: str) -> None:
        """They are the server's: `mlflow gc` removes them there."""

    def clear(self) -> None:
        self.require_usable()
        client = client_of(self)
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        while found := client.search_runs(everywhere, owned(self)):
            for run in found:
                client.delete_run(run.info.run_id)


def owned(store: MlflowStore, *more: str) -> str:
    """MLflow's filter for the runs of these records, and for what ``more`` says."""
    mine = () if store.owner is None else (f"tags.`{OWNER}` = '{store.owner}'",)
    return " and ".join((*mine, *more))


OWNER = "ditr.runs"
"""Tag of a run on a server: whose it is."""


def client_of(store: MlflowStore) -> MlflowClient:
    """For a store that can be used."""
    import_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(store.uri)


def import_mlflow() -> None:
    """With what it must know before."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # Each connection is opened when it is needed: one that is kept would write to a store that was replaced since.
    os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
    for name, value in _SERVER_LIMITS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401  (its loggers are there once it is imported)

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("mlflow.store.db.utils", "urllib3"):  # tracebacks and repetitions of what we say in a line
        logging.getLogger(name).setLevel(logging.CRITICAL)


def migrate(path: Path, *, artefacts: str) -> None:
    """Makes an empty store there, which takes seconds."""
    import_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"sqlite:///{path}", artefacts)  # type: ignore[no-untyped-call]


def _mismatch(columns: set[tuple[str, str]], versions: list[str]) -> str | None:
    """What is not as this version of MLflow makes it."""
    layout = _layout()
    if unknown := set(versions) - layout.revisions:
        return f"a newer MLflow than the one here made it: its revision is {', '.join(sorted(unknown))}"
    if versions != [layout.head] or not layout.columns <= columns:
        return "it was made by an older MLflow, or its migration ended midway"
    return None


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Of a store of the MLflow that is here."""

    head: str | None
    revisions: frozenset[str]
    """Of its making, and of those of all versions before."""
    columns: frozenset[tuple[str, str]]
    """Table and column."""


@cache
def _layout() -> _Layout:
    import_mlflow()
    from alembic.script import ScriptDirectory
    from mlflow.store import db_migrations
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.tracking.dbmodels import models  # noqa: F401  (makes the tables known)

    script = ScriptDirectory(str(Path(db_migrations.__file__).parent))
    tables = Base.metadata.tables.values()
    return _Layout(
        head=script.get_current_head(),
        revisions=frozenset(revision.revision for revision in script.walk_revisions()),
        columns=frozenset((table.name, column.name) for table in tables for column in table.columns),
    )


def _is_of_a_server(uri: str) -> bool:
    """A path may follow, but nothing after it: MLflow's own paths would become a part of that."""
    try:
        parts = urlsplit(uri)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a host or a port that can be none
        return False
    return whole and uri.isprintable() and " " not in uri and not set("?#") & set(uri)


def without_password(text: str) -> str:
    """An address without user, password and what is asked of it, or a text without those of the addresses in it."""
    text = re.sub(r"(?<=://).*@", "", text, flags=re.DOTALL)
    return re.sub(r"(://[^\s?#]*)[?#]\S*", r"\1", text)
