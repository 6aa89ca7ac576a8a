"""Results as rows: one DuckDB file beside the run folders, and reading it with SQL that can touch nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from filelock import FileLock

from ditr.errors import Code, DitrError
from ditr.record.folder import RunFolder, run_folders

if TYPE_CHECKING:
    import duckdb

RESULT_COLUMNS = {
    "run_key": "VARCHAR PRIMARY KEY",
    "kind": "VARCHAR",
    "name": "VARCHAR",
    "variant": "VARCHAR",
    "seed": "BIGINT",
    "spec_hash": "VARCHAR",
    "dataset": "VARCHAR",
    "dataset_digest": "VARCHAR",
    "split": "VARCHAR",
    "n_frames": "BIGINT",
    "excluded_frames": "BIGINT",
    "intrinsics": "VARCHAR",
    "feature_source": "VARCHAR",
    "sampling": "VARCHAR",
    "control": "VARCHAR",
    "pooling": "VARCHAR",
    "scales": "VARCHAR",
    "input_size": "VARCHAR",
    "epochs": "INTEGER",
    "checkpoint": "VARCHAR",
    "ap": "DOUBLE",
    "ap50": "DOUBLE",
    "ap25": "DOUBLE",
    "ap_to_90": "DOUBLE",
    "ap_to_95": "DOUBLE",
    "valid_ratio": "DOUBLE",
    "fusion_2d_ratio": "DOUBLE",
    "params_m": "DOUBLE",
    "step_ms": "DOUBLE",
    "data_ms": "DOUBLE",
    "infer_ms": "DOUBLE",
    "peak_mem_mb": "DOUBLE",
    "memory_of": "VARCHAR",
    "unmatched_samples": "BIGINT",
    "nan_windows": "BIGINT",
    "failed_checks": "BIGINT",
    "esam_compat": "BOOLEAN",
    "esam_differences": "VARCHAR",
    "wall_s": "DOUBLE",
    "device": "VARCHAR",
    "git": "VARCHAR",
    "dirty": "BOOLEAN",
    "state": "VARCHAR",
    "started_at": "TIMESTAMP",
    "folder": "VARCHAR",
}
"""One row a run, an evaluation, an imported log or a check of a spec (``kind`` run, eval, imported, check). Scales are
written as ``8,4,2,1``; what a run has no value for yet is null, and failed_checks is 0 where a spec passed all. Times
exclude reading data: step_ms is the median over all steps of the training (copy to the device, forward, loss, backward,
update), data_ms the mean that a step waited for its data, infer_ms the median over frames of forward pass and
post-processing. peak_mem_mb is the most over training and evaluation, of what memory_of says; result.json has each."""

FRAME_COLUMNS = {
    "run_key": "VARCHAR",
    "frame_id": "VARCHAR",
    "scene": "VARCHAR",
    "n_points": "BIGINT",
    "n_void": "BIGINT",
    "n_superpoints": "BIGINT",
    "n_gt": "BIGINT",
    "n_gt_small": "BIGINT",
    "n_pred": "BIGINT",
    "best_iou": "DOUBLE",
    "valid_ratio": "DOUBLE",
    "depth_ok": "DOUBLE",
    "boundary_ok": "DOUBLE",
    "fusion_2d_ratio": "DOUBLE",
    "infer_ms": "DOUBLE",
}
"""One row a run and frame of its final evaluation."""

METRIC_COLUMNS = {"run_key": "VARCHAR", "step": "BIGINT", "name": "VARCHAR", "value": "DOUBLE"}
"""Long form of metrics.jsonl."""

CHECK_COLUMNS = {
    "run_key": "VARCHAR",
    "name": "VARCHAR",
    "variant": "VARCHAR",
    "stage": "INTEGER",
    "check_name": "VARCHAR",
    "value": "DOUBLE",
    "bound": "VARCHAR",
    "passed": "BOOLEAN",
    "detail": "VARCHAR",
}
"""One row a check of a spec, whose name and variant stand with it. Stages are 1 features, 2 projection, 3 pyramid, 4
injection; bound is what the value was held against, such as ``<= 0.05``, or ``reported``."""

INSTANCE_COLUMNS = {
    "run_key": "VARCHAR",
    "frame_id": "VARCHAR",
    "instance": "BIGINT",
    "n_points": "BIGINT",
    "size_m": "DOUBLE",
    "distance_m": "DOUBLE",
    "valid_ratio": "DOUBLE",
    "class_name": "VARCHAR",
    "frequency": "VARCHAR",
    "texture_only": "BOOLEAN",
    "best_iou": "DOUBLE",
}
"""One row a run and ground-truth instance of its final evaluation; evaluation/instance_facts.py says what each is."""

_TABLES = {
    "results": RESULT_COLUMNS,
    "frames": FRAME_COLUMNS,
    "instances": INSTANCE_COLUMNS,
    "metrics": METRIC_COLUMNS,
    "checks": CHECK_COLUMNS,
}
_CHECK_FIELDS = {
    "stage": "INTEGER",
    "name": "VARCHAR",
    "value": "DOUBLE",
    "limit": "VARCHAR",
    "passed": "BOOLEAN",
    "detail": "VARCHAR",
}
"""Of a line of checks.jsonl, in the order of the columns."""
_RETRIES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Rows:
    """The answer to a query."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Results:
    """``runs/results.duckdb``: a view of the run folders beside it, one short connection per call.

    A file with other tables or columns was made by another version of ditr; it is made anew before it is used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, folder: RunFolder) -> None:
        """Replaces all rows of one run by what its folder says now."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if self.path.is_file() and not self._is_current():
                self._make_anew()
            _write(self.path, (folder,))

    def rebuild(self) -> int:
        """Makes the file anew from every run folder beside it; returns how many there are."""
        with self._lock():
            return self._make_anew()

    def query(self, sql: str) -> Rows:
        """Runs one reading statement; no file, no network, no setting can be reached from it.

        Raises
        ------
        DitrError: there are no results yet, or the statement is wrong or not a reading one.
        """
        with self._reading(sql) as connection:
            cursor = connection.execute(sql)
            columns = tuple(column[0] for column in cursor.description)
            return Rows(columns, tuple(cursor.fetchall()))

    def query_to_parquet(self, sql: str, target: Path | BinaryIO) -> None:
        """Writes the answer as a parquet file; raises as ``query`` does."""
        import pyarrow.parquet

        with self._reading(sql) as connection:
            table = connection.sql(sql).to_arrow_table()
        pyarrow.parquet.write_table(table, target)

    def _is_current(self) -> bool:
        """Whether the file has the tables and columns of this version."""
        with _connect(self.path, mode="read") as connection:
            found = _columns(connection)
        return found == {table: list(columns) for table, columns in _TABLES.items()}

    def _make_anew(self) -> int:
        """Under another name, then renamed: who reads meanwhile reads the old file."""
        folders = run_folders(self.path.parent)
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.unlink(missing_ok=True)
        try:
            _write(beside, folders)
            self._log_of(self.path).unlink(missing_ok=True)
            beside.replace(self.path)
        finally:
            for left in (beside, self._log_of(beside)):
                left.unlink(missing_ok=True)
        return len(folders)

    def _make_anew_if_old(self) -> None:
        if self._is_current():
            return
        try:
            with self._lock():
                if not self._is_current():  # another process may have been first
                    self._make_anew()
        except OSError as error:
            what = f"these results were made by another version of ditr and cannot be made anew: {error.strerror}"
            fix = "Let somebody who may write there run `ditr results rebuild`."
            raise DitrError(what, code=Code.QUERY, where=str(self.path), fix=fix) from error

    @staticmethod
    def _log_of(path: Path) -> Path:
        """DuckDB's write-ahead log, which a killed process leaves behind."""
        return path.with_name(f"{path.name}.wal")

    @contextmanager
    def _reading(self, sql: str) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        if not self.path.is_file():
            fix = "Run an experiment first: ditr run specs/fpn_inject.yaml"
            raise DitrError("there are no results yet", code=Code.QUERY, where=str(self.path), fix=fix)
        self._make_anew_if_old()
        with _connect(self.path, mode="read") as connection:
            try:
                _refuse_writing(connection, sql)
                yield connection
            except duckdb.Error as error:
                raise _explained(error, connection) from error

    def _lock(self) -> FileLock:
        return FileLock(self.path.with_name(f".{self.path.name}.lock"))


def _write(path: Path, folders: tuple[RunFolder, ...]) -> None:
    """Replaces the rows of these runs in the file, which is made if there is none."""
    with _connect(path, mode="write") as connection:
        for name, columns in _TABLES.items():
            fields = ", ".join(f"{column} {kind}" for column, kind in columns.items())
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({fields})")
        for folder in folders:
            connection.execute("BEGIN")
            _replace_rows(connection, folder)
            connection.execute("COMMIT")


def _replace_rows(connection: duckdb.DuckDBPyConnection, folder: RunFolder) -> None:
    row = _result_row(folder)
    key = row["run_key"]
    for table in _TABLES:
        connection.execute(f"DELETE FROM {table} WHERE run_key = ?", [key])
    names = ", ".join(row)
    marks = ", ".join("?" for _ in row)
    connection.execute(f"INSERT INTO results ({names}) VALUES ({marks})", list(row.values()))
    if folder.frames.is_file():
        columns = {name: kind for name, kind in FRAME_COLUMNS.items() if name != "run_key"}
        read = f"read_json(?, format = 'newline_delimited', columns = {columns})"
        connection.execute(
            f"INSERT INTO frames SELECT ? AS run_key, {', '.join(columns)} FROM {read}", [key, str(folder.frames)]
        )
    if folder.instances.is_file():
        columns = {name: kind for name, kind in INSTANCE_COLUMNS.items() if name != "run_key"}
        connection.execute(
            f"INSERT INTO instances SELECT ? AS run_key, {', '.join(columns)} FROM read_parquet(?)",
            [key, str(folder.instances)],
        )
    if folder.metrics.is_file():
        rows = "{'step': 'BIGINT', 'metrics': 'MAP(VARCHAR, DOUBLE)'}"
        read = f"read_json(?, format = 'newline_delimited', columns = {rows})"
        connection.execute(
            f"INSERT INTO metrics SELECT ? AS run_key, step, e.key, e.value "
            f"FROM (SELECT step, unnest(map_entries(metrics)) AS e FROM {read})",
            [key, str(folder.metrics)],
        )
    if folder.checks.is_file():
        fields = ", ".join(f'"{field}"' for field in _CHECK_FIELDS)
        read = f"read_json(?, format = 'newline_delimited', columns = {_CHECK_FIELDS})"
        connection.execute(
            f"INSERT INTO checks SELECT ? AS run_key, ? AS name, ? AS variant, {fields} FROM {read}",
            [key, row["name"], row["variant"], str(folder.checks)],
        )


def _result_row(folder: RunFolder) -> dict[str, Any]:
    state = folder.state()
    if state is None:
        raise DitrError("not a run folder", code=Code.RUN, where=str(folder.path), fix="Name a folder in runs/.")
    result = json.loads(folder.result.read_text()) if folder.result.is_file() else {}
    known = {name: result.get(name) for name in RESULT_COLUMNS}
    identity = {
        "run_key": state.run_key,
        "kind": state.kind,
        "name": state.name,
        "variant": state.variant,
        "seed": state.seed,
    }
    status = {"state": state.state, "started_at": state.started_at, "wall_s": state.wall_s, "folder": folder.path.name}
    return known | identity | {"spec_hash": state.spec_hash} | status


def _connect(path: Path, *, mode: Literal["read", "write"]) -> duckdb.DuckDBPyConnection:
    import duckdb

    locked_down: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": "false",
        "lock_configuration": "true",
    }
    for wait_s in (*_RETRIES_S, None):
        try:
            if mode == "write":
                return duckdb.connect(str(path))
            return duckdb.connect(str(path), read_only=True, config=locked_down)
        except duckdb.IOException as error:
            # Another process is writing: its connection is short.
            if wait_s is None:
                fix = "Close what holds it open; if the file is damaged, make it anew: ditr results rebuild"
                raise DitrError(
                    f"cannot open the results: {error}", code=Code.QUERY, where=str(path), fix=fix
                ) from error
            time.sleep(wait_s)
    raise AssertionError("unreachable")


def _refuse_writing(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    import duckdb

    reading = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
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
            fix=f"Read only the tables: {', '.join(_TABLES)}.",
        )
    if isinstance(error, duckdb.BinderException):
        tables = {name: ", ".join(columns) for name, columns in _columns(connection).items()}
        fix = "The columns are:\n" + "\n".join(f"    {name}: {columns}" for name, columns in tables.items())
        return DitrError(head, code=Code.QUERY, fix=fix)
    if isinstance(error, duckdb.CatalogException):
        return DitrError(head, code=Code.QUERY, fix=f"The tables are: {', '.join(_TABLES)}.")
    return DitrError(head, code=Code.QUERY, fix='Example: ditr query "select variant, seed, ap50 from results"')


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    found = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal ORDER BY table_name DESC, column_index"
    ).fetchall()
    return {table: [column for name, column in found if name == table] for table, _ in found}
