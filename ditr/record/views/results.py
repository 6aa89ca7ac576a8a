"""Results as rows: one DuckDB file beside the records, and reading it with SQL that can touch nothing else."""

from __future__ import annotations

import fcntl
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from filelock import FileLock

from ditr.errors import Code, DitrError
from ditr.files import replacing
from ditr.record.columns import TABLES
from ditr.record.folder import Record, records_in
from ditr.record.views.limits import DEFAULT_LIMITS, QueryLimits
from ditr.record.views.rows import replace_rows

if TYPE_CHECKING:
    import duckdb

_T = TypeVar("_T")
FILE = "results.duckdb"
_STAMPS = "stamps"
"""The table of what was read: a stamp a folder."""
_RETRIES_S = (0.1, 0.2, 0.5, 1.0)
_ROWS_A_PART = 10_000
"""Of an answer, between two looks at how large it is."""


@dataclass(frozen=True)
class Rows:
    """The answer to a query."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class _DamagedFileError(DitrError):
    """The file opens, and what a query needs of it is damaged."""

    def __init__(self, why: str, path: Path) -> None:
        fix = "let the folder of runs be written, and make it anew: ditr results rebuild"
        super().__init__(f"is damaged: {why}", code=Code.QUERY, where=str(path), fix=fix)


class Results:
    """``results.duckdb``: a view of the records beside it, one short connection per call.

    Nothing is lost with the file. One that is damaged, of another version of ditr, or held open by another program is
    made anew from the folders, under another name, and renamed: who has the old one open keeps reading that.
    """

    name = FILE

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.path = runs / FILE

    def tell(self, folders: Sequence[Record]) -> None:
        """Replaces the rows of these records by what their folders say now.

        Raises
        ------
        OSError: nothing can be written there.
        """
        with self._lock():
            if self._is_current():
                self._update(folders)
            else:
                self._make_anew()

    def catch_up(self) -> None:
        """Tells it every record that changed since, and forgets those that are gone; raises as ``tell`` does."""
        if (not self.path.is_file() and not records_in(self.runs)) or self._behind() == []:
            return
        with self._lock():
            behind = self._behind()  # another process may have been first
            if behind is None:
                self._make_anew()
            elif behind:
                self._update(behind)

    def rebuild(self) -> int:
        """Makes the file anew from every record beside it; returns how many there are."""
        with self._lock():
            return self._make_anew()

    def query(self, sql: str, *, limits: QueryLimits = DEFAULT_LIMITS) -> Rows:
        """Runs one reading statement over what the folders say now; no file, no network, no setting can be reached.

        Raises
        ------
        DitrError: there are no results yet, the statement is wrong or not a reading one, or it goes beyond the limits.
        """

        def rows(connection: duckdb.DuckDBPyConnection) -> Rows:
            cursor = connection.execute(sql)
            columns = tuple(column[0] for column in cursor.description)
            parts = limits.collect(iter(partial(cursor.fetchmany, _ROWS_A_PART), []))
            return Rows(columns, tuple(chain.from_iterable(parts)))

        return self._answer(sql, rows, limits=limits)

    def query_to_parquet(self, sql: str, target: Path | BinaryIO, *, limits: QueryLimits = DEFAULT_LIMITS) -> None:
        """Writes the answer as a parquet file; raises as ``query`` does, and for a type that it cannot hold."""
        import pyarrow.parquet

        def table(connection: duckdb.DuckDBPyConnection) -> pyarrow.Table:
            parts = connection.sql(sql).to_arrow_reader(_ROWS_A_PART)
            return pyarrow.Table.from_batches(limits.collect(parts), schema=parts.schema)

        answer = self._answer(sql, table, limits=limits)
        try:
            if isinstance(target, Path):
                with replacing(target) as beside:
                    pyarrow.parquet.write_table(answer, beside)
            else:
                pyarrow.parquet.write_table(answer, target)
        except pyarrow.ArrowException as error:
            fix = "Cast it, such as select (ended_at - started_at)::varchar, or choose --format csv."
            raise DitrError(f"parquet cannot hold this answer: {error}", code=Code.QUERY, fix=fix) from error

    def _answer(self, sql: str, read: Callable[[duckdb.DuckDBPyConnection], _T], *, limits: QueryLimits) -> _T:
        """What is read of the file, which is made anew if it turns out to be damaged inside."""
        try:
            with self._reading(sql, limits) as connection:
                return read(connection)
        except _DamagedFileError:
            with suppress(OSError):  # where nothing can be written, that it is damaged is to be told
                self.rebuild()
        with self._reading(sql, limits) as connection:
            return read(connection)

    def _behind(self) -> list[Record] | None:
        """Folders that are not as they were when they were read; None for a file that cannot tell, or holds one that is
        gone: a copy of that, which is a row without numbers, may be the record now."""
        import duckdb

        found = {folder.name: folder for folder in records_in(self.runs)}
        try:
            if not self._is_current():
                return None
            with _connect(self.path, mode="read") as connection:
                known = dict(connection.execute(f"SELECT folder, stamp FROM {_STAMPS}").fetchall())
        except duckdb.Error:
            return None
        if not known.keys() <= found.keys():
            return None
        return [folder for name, folder in found.items() if known.get(name) != folder.stamp()]

    def _is_current(self) -> bool:
        """Whether the file is one, with the tables and columns of this version."""
        import duckdb

        if not self.path.is_file():
            return False
        try:
            with _connect(self.path, mode="read") as connection:
                found = _columns(connection)
        except duckdb.Error:
            return False
        return found == {_STAMPS: ["folder", "stamp"]} | {table: list(columns) for table, columns in TABLES.items()}

    def _update(self, folders: Sequence[Record]) -> None:
        import duckdb

        try:
            _write(self.path, folders)
        except duckdb.Error:  # it is damaged, or another program holds it open
            self._make_anew()

    def _make_anew(self) -> int:
        import duckdb

        folders = records_in(self.runs)
        with replacing(self.path, alone=True) as beside:
            try:
                _write(beside, folders)
            except duckdb.Error as error:
                raise OSError(f"{self.path} cannot be written: {error}") from error
            finally:
                _log_of(beside).unlink(missing_ok=True)
            _log_of(self.path).unlink(missing_ok=True)  # of the old file, left by a killed process
        return len(folders)

    @contextmanager
    def _reading(self, sql: str, limits: QueryLimits) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        if not records_in(self.runs):
            fix = "Run an experiment first: ditr run specs/fpn_inject.yaml"
            raise DitrError("there are no results yet", code=Code.QUERY, where=str(self.runs), fix=fix)
        with self._caught_up() as path, _connect(path, mode="read", limits=limits) as connection:
            try:
                _refuse_writing(connection, sql)
                with limits.interrupting(connection):
                    yield connection
            except duckdb.InterruptException as error:
                raise limits.time_exceeded() from error
            except duckdb.OutOfMemoryException as error:
                raise limits.memory_exceeded() from error
            except duckdb.Error as error:
                if type(error) is duckdb.Error or isinstance(error, duckdb.IOException | duckdb.FatalException):
                    raise _DamagedFileError(str(error), path) from error  # a statement's own errors have other classes
                raise _explained(error, connection) from error

    @contextmanager
    def _caught_up(self) -> Iterator[Path]:
        """The file, or where it cannot be written one that is there for this query only."""
        try:
            self.catch_up()
        except OSError:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / FILE
                _write(path, records_in(self.runs))
                yield path
            return
        yield self.path

    def _lock(self) -> FileLock:
        self.runs.mkdir(parents=True, exist_ok=True)
        return FileLock(self.runs / f".{FILE}.lock")


def _write(path: Path, folders: Sequence[Record]) -> None:
    """Replaces the rows of these records in the file, which is made if there is none."""
    with _connect(path, mode="write") as connection:
        for name, columns in {**TABLES, _STAMPS: {"folder": "VARCHAR", "stamp": "VARCHAR"}}.items():
            fields = ", ".join(f"{column} {kind}" for column, kind in columns.items())
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({fields})")
        for folder in folders:
            stamp = folder.stamp()  # before it is read: what changes meanwhile is read again the next time
            _forget(connection, folder.name)
            replace_rows(connection, folder)
            connection.execute(f"INSERT INTO {_STAMPS} VALUES (?, ?)", [folder.name, stamp])


def _forget(connection: duckdb.DuckDBPyConnection, folder: str) -> None:
    keys = connection.execute("SELECT run_key FROM results WHERE folder = ?", [folder]).fetchall()
    for (key,) in keys:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table} WHERE run_key = ?", [key])
    connection.execute(f"DELETE FROM {_STAMPS} WHERE folder = ?", [folder])


def _log_of(path: Path) -> Path:
    """DuckDB's write-ahead log, which a killed process leaves behind."""
    return path.with_name(f"{path.name}.wal")


def _connect(
    path: Path, *, mode: Literal["read", "write"], limits: QueryLimits = DEFAULT_LIMITS
) -> duckdb.DuckDBPyConnection:
    import duckdb

    locked_down: dict[str, str | bool | int | float | list[str]] = {
        **limits.settings(),
        "enable_external_access": "false",
        "lock_configuration": "true",
    }
    for wait_s in (*_RETRIES_S, None):
        try:
            if mode == "write":
                return duckdb.connect(str(path))
            return duckdb.connect(str(path), read_only=True, config=locked_down)
        except duckdb.IOException:
            if wait_s is None or not _is_held(path):
                raise
            time.sleep(wait_s)  # another process of ditr is writing: its connection is short
    raise AssertionError("unreachable")


def _is_held(path: Path) -> bool:
    """Whether another process has the file open; DuckDB locks it as POSIX does."""
    try:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _refuse_writing(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    import duckdb

    reading = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if any("\ud800" <= character <= "\udfff" for character in sql):
        raise DitrError("the statement is not UTF-8", code=Code.QUERY, fix="Write it in UTF-8.")
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise DitrError(f"{len(statements)} statements", code=Code.QUERY, fix="Give exactly one SELECT statement.")
    kind = statements[0].type
    if kind not in reading:
        fix = "Only reading is allowed: give one SELECT statement."
        raise DitrError(f"{kind.name} is refused", code=Code.QUERY, fix=fix)


def _explained(error: duckdb.Error, connection: duckdb.DuckDBPyConnection) -> DitrError:
    import duckdb

    head = str(error).split("\n\nLINE", 1)[0].replace("\n", " ")
    if isinstance(error, duckdb.PermissionException):
        return DitrError(
            "a query can read no file, no network and no setting",
            code=Code.QUERY,
            fix=f"Read only the tables: {', '.join(TABLES)}.",
        )
    if isinstance(error, duckdb.BinderException):
        tables = {name: ", ".join(columns) for name, columns in _columns(connection).items() if name in TABLES}
        fix = "The columns are:\n" + "\n".join(f"    {name}: {columns}" for name, columns in tables.items())
        return DitrError(head, code=Code.QUERY, fix=fix)
    if isinstance(error, duckdb.CatalogException):
        return DitrError(head, code=Code.QUERY, fix=f"The tables are: {', '.join(TABLES)}.")
    return DitrError(head, code=Code.QUERY, fix='Example: ditr query "select variant, seed, ap50 from results"')


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    found = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal ORDER BY table_name DESC, column_index"
    ).fetchall()
    return {table: [column for name, column in found if name == table] for table, _ in found}
