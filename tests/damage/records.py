"""The files of records, each read as every command that shows a record reads it, and the views of records."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import duckdb

from ditr.data.frame_view import load_views
from ditr.errors import Code, DitrError
from ditr.evaluation.match_table import MatchTable
from ditr.layouts import RECORD
from ditr.record.columns import TABLES
from ditr.record.folder import Record
from ditr.record.views.mlflow_view import MlflowView
from ditr.record.views.results import Results
from ditr.record.views.rows import replace_rows
from ditr.record.views.tracked import tracked
from ditr.runner.job_text import job_from, job_text
from ditr.runner.plan import plan
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry
from tests.damage.kind import SHORT, Files, Kind

ROOT = Path(__file__).parents[2]
LAYOUT = ROOT / "tests/record/layouts" / str(RECORD)
FILES = {
    "run": (
        "state.json",
        "result.json",
        "provenance.json",
        "spec.resolved.yaml",
        "metrics.jsonl",
        "frames.jsonl",
        "matches.parquet",
        "instances.parquet",
        "kept/*.npz",
    ),
    "check": ("checks.jsonl", "result.json"),
    "imported": ("metrics.jsonl", "provenance.json"),
    "eval": ("state.json",),
}
"""By kind of record those of its files that are damaged, each a kind of its own."""
READ_BY_DUCKDB = ("frames.jsonl", "instances.parquet", "checks.jsonl")


@cache
def tables() -> duckdb.DuckDBPyConnection:
    """Those of ``results.duckdb``, in memory: a file of DuckDB's takes longer to open than a record to read."""
    connection = duckdb.connect()
    for name, columns in TABLES.items():
        fields = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        connection.execute(f"CREATE TABLE {name} ({fields})")
    return connection


def write_record(folder: Path, *, kind: str, file: str) -> Files:
    (source,) = (path for path in LAYOUT.iterdir() if json.loads((path / "state.json").read_text())["kind"] == kind)
    return tuple(sorted(Path(shutil.copytree(source, folder / source.name)).glob(file)))


def write_stopped(folder: Path, *, file: str) -> Files:
    """Of a run that may go on, of which nobody can say yet how its files end."""
    files = write_record(folder, kind="run", file=file)
    record = Record(files[0].parent)
    state = record.state()
    assert state is not None
    record.set_state(replace(state, state="interrupted"))
    return files


def read_record(folder: Path, _: Files) -> object:
    """As ``ls``, ``query``, ``compare``, ``view`` and MLflow's view do."""
    (record,) = (Record(path) for path in folder.iterdir())
    facts, result, logged = record.read_provenance(), record.read_result(), list(record.logged())
    record.require_whole(record.spec)
    table = record.require_whole(record.matches)
    matches = [repr(vars(frame)) for frame in MatchTable.load(table).frames] if table.is_file() else []
    if record.kept.is_dir():
        load_views(record.kept)
    connection = tables()
    for table in TABLES:
        connection.execute(f"DELETE FROM {table}")
    replace_rows(connection, record)
    rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    ((said,),) = connection.execute("SELECT state FROM results").fetchall()
    if said.startswith(("unreadable", "written by a newer")):
        assert tracked(record) is None or "jsonl" in said or "parquet" in said
        raise DitrError(said, code=Code.RUN)
    spec = record.read_spec() if record.spec.is_file() else None
    return repr([rows, spec, facts, result, logged, matches])


def write_views(folder: Path) -> Files:
    write_record(folder / "runs", kind="eval", file="state.json")
    Results(folder / "runs").rebuild()
    return (folder / "runs/results.duckdb",)


def read_views(folder: Path, files: Files) -> object:
    """Made again, whatever happened to it."""
    rows = Results(folder / "runs").query("select * from results order by folder").rows
    for left in files[0].parent.glob("results.duckdb.*"):
        left.unlink()
    return repr(rows)


def write_mlflow(folder: Path) -> Files:
    write_record(folder / "runs", kind="eval", file="state.json")
    MlflowView(folder / "runs").rebuild()
    return (folder / "runs/mlflow.db",)


def read_mlflow(folder: Path, files: Files) -> object:
    """As after a run, and as ``ui`` does."""
    view = MlflowView(folder / "runs")
    view.catch_up()
    for left in files[0].parent.glob("mlflow.db-*"):
        left.unlink()
    return view.pages()


def write_job(folder: Path) -> Files:
    """What a queue gives to the process of a run."""
    registry = Registry(ROOT / "tests/spec/registry")
    spec = load_spec(ROOT / "tests/spec/good/base.yaml", registry=registry)
    run, *_ = plan([spec], registry=registry, runs=folder / "runs", force=False)
    (folder / "job.json").write_text(job_text(run))
    return (folder / "job.json",)


def read_job(_: Path, files: Files) -> object:
    return job_from(files[0].read_text(errors="surrogateescape"))


def of_record(kind: str, file: str) -> Kind:
    def write(folder: Path) -> Files:
        return write_record(folder, kind=kind, file=file)

    return Kind(write=write, read=read_record, few=8 if file in READ_BY_DUCKDB else SHORT)


def of_stopped(file: str) -> Kind:
    def write(folder: Path) -> Files:
        return write_stopped(folder, file=file)

    return Kind(write=write, read=read_record, guarded=False, few=8)


KINDS = {
    **{f"{kind}'s {file}": of_record(kind, file) for kind, files in FILES.items() for file in files},
    **{f"stopped run's {file}": of_stopped(file) for file in ("state.json", "metrics.jsonl", "provenance.json")},
    "job of a queue": Kind(write=write_job, read=read_job, guarded=False),
    "mlflow.db": Kind(write=write_mlflow, read=read_mlflow, guarded=False, few=0),
    "results.duckdb": Kind(write=write_views, read=read_views, remade=True, few=6),
}
