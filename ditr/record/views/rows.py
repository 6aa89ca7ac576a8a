"""One record as rows of the results' tables; a record that cannot be read is one row that says why."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditr.errors import DitrError
from ditr.record.columns import CHECK_COLUMNS, FRAME_COLUMNS, INSTANCE_COLUMNS, result_columns
from ditr.record.folder import Record
from ditr.record.state import RecordState, unreadable
from ditr.spec.identity import FIRST_EXECUTION

if TYPE_CHECKING:
    import duckdb

_CHECK_FIELDS = {
    "stage": "INTEGER",
    "name": "VARCHAR",
    "value": "DOUBLE",
    "limit": "VARCHAR",
    "passed": "BOOLEAN",
    "detail": "VARCHAR",
}
"""Of a line of checks.jsonl, in the order of the columns."""
assert len(_CHECK_FIELDS) == len(CHECK_COLUMNS) - 3


def replace_rows(connection: duckdb.DuckDBPyConnection, folder: Record) -> None:
    """Writes all rows of the record, or if a file of it is damaged, the one that says so."""
    connection.execute("BEGIN")
    try:
        _insert_all(connection, folder)
    except DitrError as error:
        connection.execute("ROLLBACK")
        connection.execute("BEGIN")
        name = folder.name
        row = {"run_key": name, "name": name, "folder": name, "state": error.what}
        _insert(connection, row)
    connection.execute("COMMIT")


def result_row(folder: Record) -> dict[str, Any]:
    """The record's row of the results.

    Raises
    ------
    UnreadableRecord: its state or its result is damaged.
    """
    state = folder.state()
    assert state is not None, "records are listed by their state"
    result = folder.read_result()
    if result and state.kind != "imported":
        result = FIRST_EXECUTION | result
    return result_columns(result) | {
        "run_key": state.run_key,
        "kind": state.kind,
        "name": state.name,
        "variant": state.variant,
        "seed": state.seed,
        "spec_hash": state.spec_hash,
        "wall_s": state.wall_s,
        "state": standing(folder, state),
        "started_at": state.started_at,
        "folder": folder.name,
    }


def standing(folder: Record, state: RecordState) -> str:
    """Its state; ``interrupted`` where it says running and no process runs it."""
    return "interrupted" if state.state == "running" and not folder.is_locked() else state.state


def _insert_all(connection: duckdb.DuckDBPyConnection, folder: Record) -> None:
    row = result_row(folder)
    key = row["run_key"]
    same = connection.execute("SELECT folder FROM results WHERE run_key = ?", [key]).fetchone()
    if same is not None:
        raise unreadable(folder.state_file, ValueError(f"it is a copy of {same[0]}"))
    with _blaming(folder.state_file):
        _insert(connection, row)
    if folder.require_whole(folder.frames).is_file():
        columns = _without_key(FRAME_COLUMNS)
        read = f"read_json(?, format = 'newline_delimited', columns = {columns})"
        with _blaming(folder.frames):
            connection.execute(
                f"INSERT INTO frames SELECT ? AS run_key, {', '.join(columns)} FROM {read}",
                [key, _literal(folder.frames)],
            )
    if folder.require_whole(folder.instances).is_file():
        columns = _without_key(INSTANCE_COLUMNS)
        with _blaming(folder.instances):
            connection.execute(
                f"INSERT INTO instances SELECT ? AS run_key, {', '.join(columns)} FROM read_parquet(?)",
                [key, _literal(folder.instances)],
            )
    if folder.require_whole(folder.metrics).is_file():
        with _blaming(folder.metrics):
            _insert_metrics(connection, folder, key=key)
    if folder.require_whole(folder.checks).is_file():
        fields = ", ".join(f'"{field}"' for field in _CHECK_FIELDS)
        read = f"read_json(?, format = 'newline_delimited', columns = {_CHECK_FIELDS})"
        with _blaming(folder.checks):
            connection.execute(
                f"INSERT INTO checks SELECT ? AS run_key, ? AS name, ? AS variant, {fields} FROM {read}",
                [key, row["name"], row["variant"], _literal(folder.checks)],
            )


def _insert(connection: duckdb.DuckDBPyConnection, row: Mapping[str, Any]) -> None:
    marks = ", ".join("?" for _ in row)
    connection.execute(f"INSERT INTO results ({', '.join(row)}) VALUES ({marks})", list(row.values()))


def _insert_metrics(connection: duckdb.DuckDBPyConnection, folder: Record, *, key: str) -> None:
    """Every whole line; one at the end that a crash cut off is left out, any other that cannot be read is damage."""
    columns = "{'step': 'BIGINT', 'metrics': 'MAP(VARCHAR, DOUBLE)'}"
    read = f"read_json(?, format = 'newline_delimited', columns = {columns}, ignore_errors = true)"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE logged AS SELECT * FROM {read}", [_literal(folder.metrics)])
    damaged = "step IS NULL OR metrics IS NULL OR len(list_filter(map_values(metrics), lambda x: x IS NULL)) > 0"
    broken = connection.execute(f"SELECT count(*) FROM logged WHERE {damaged}").fetchall()[0][0]
    if broken > (0 if _ends_whole(folder.metrics) else 1):
        raise unreadable(folder.metrics, ValueError(f"{broken} lines are damaged"))
    connection.execute(
        "INSERT INTO metrics SELECT ? AS run_key, step, e.key, e.value "
        "FROM (SELECT step, unnest(map_entries(metrics)) AS e FROM logged WHERE step IS NOT NULL)",
        [key],
    )


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        if file.tell() == 0:
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _literal(path: Path) -> str:
    """The path for DuckDB, which would take ``*`` in it for any name."""
    return glob.escape(str(path))


def _without_key(columns: Mapping[str, str]) -> dict[str, str]:
    return {name: kind for name, kind in columns.items() if name != "run_key"}


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """What DuckDB cannot read is the file's damage."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise unreadable(path, error) from error
