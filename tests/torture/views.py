"""Whether results.duckdb and mlflow.db say what the records say, by an own reading of both."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

_STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


def views_disagree(runs: Path) -> list[str]:
    """In words, what a view has that the records do not, or lacks, or says otherwise."""
    records = {path.parent.name: path.parent for path in runs.glob("*/state.json")}
    lines = []
    if (runs / "results.duckdb").is_file():
        lines += _in_results(runs / "results.duckdb", records)
    if (runs / "mlflow.db").is_file():
        lines += _in_mlflow(runs, records)
    return lines


def _in_results(file: Path, records: dict[str, Path]) -> list[str]:
    import duckdb

    lines = []
    with duckdb.connect(str(file), read_only=True) as connection:
        rows = connection.execute("SELECT folder, run_key, state, ap50, kind FROM results").fetchall()
        counts = {
            table: Counter(dict(connection.execute(f"SELECT run_key, count(*) FROM {table} GROUP BY 1").fetchall()))
            for table in ("metrics", "frames", "instances", "checks")
        }
    if Counter(row[0] for row in rows) != Counter(records.keys()):
        lines.append(f"results.duckdb has rows of {sorted(row[0] for row in rows)}, the records are {sorted(records)}")
    keys = {row[1] for row in rows}
    for table, by_key in counts.items():
        if stale := by_key.keys() - keys:
            lines.append(f"results.duckdb: {table} of {sorted(stale)}, which no record is of")
    for folder, key, state, ap50, _ in rows:
        if folder not in records:
            continue
        path = records[folder]
        said = json.loads((path / "state.json").read_text())
        result = _json(path / "result.json")
        if (state, key, ap50) != (said["state"], said["run_key"], result.get("ap50")):
            lines.append(f"results.duckdb: {folder} is {state}, ap50 {ap50}; its record {said['state']}")
        logged = sum(len(row["metrics"]) for row in _rows(path / "metrics.jsonl"))
        wanted = {name: len(_rows(path / f"{name}.jsonl")) for name in ("frames", "checks")} | {"metrics": logged}
        for table, count in wanted.items():
            if counts[table][key] != count:
                lines.append(f"results.duckdb: {folder} has {counts[table][key]} {table}, its record {count}")
    return lines


def _in_mlflow(runs: Path, records: dict[str, Path]) -> list[str]:
    lines = []
    with closing(sqlite3.connect(f"file:{runs / 'mlflow.db'}?mode=ro", uri=True)) as connection:
        living = "SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'"
        alive = dict(connection.execute(living).fetchall())
        tags: dict[str, dict[str, str]] = {run: {} for run in alive}
        for run, key, value in connection.execute("SELECT run_uuid, key, value FROM tags"):
            if run in tags:
                tags[run][key] = value
        values: dict[str, Counter[tuple[str, int, float]]] = {run: Counter() for run in alive}
        for run, key, step, value in connection.execute("SELECT run_uuid, key, step, value FROM metrics"):
            if run in values:
                values[run][(key, step, value)] += 1
    children = {run: said["ditr.folder"] for run, said in tags.items() if "ditr.folder" in said}
    if Counter(children.values()) != Counter(records.keys()):
        lines.append(f"mlflow.db has runs of {sorted(children.values())}, the records are {sorted(records)}")
    parents = {said["mlflow.parentRunId"] for run, said in tags.items() if "mlflow.parentRunId" in said}
    if lonely := alive.keys() - children.keys() - parents:
        lines.append(f"mlflow.db has {len(lonely)} parents without a run")
    of_spec = Counter(said["ditr.spec_hash"] for run, said in tags.items() if said.get("ditr.level") == "spec")
    if any(count > 1 for count in of_spec.values()):
        lines.append("mlflow.db has several parents of one spec")
    for run, folder in children.items():
        if folder in records:
            lines += _of_run(records[folder], alive[run], values[run], tags[run])
    files = {path.name for path in (runs / "mlartifacts").glob("*") if path.is_dir()}
    if files - alive.keys():
        lines.append(f"mlartifacts has folders of {len(files - alive.keys())} runs that are gone")
    return lines


def _of_run(record: Path, status: str, values: Counter[tuple[str, int, float]], tags: dict[str, str]) -> list[str]:
    state = json.loads((record / "state.json").read_text())["state"]
    lines = [] if status == _STATUS[state] else [f"mlflow.db: {record.name} is {status}, its record {state}"]
    logged = Counter(
        (name, row["step"], value) for row in _rows(record / "metrics.jsonl") for name, value in row["metrics"].items()
    )
    curves = Counter({key: count for key, count in values.items() if key[1] != 0})
    if curves != logged:
        lines.append(f"mlflow.db: {record.name} has {curves.total()} logged values, its record {logged.total()}")
    ap50 = _json(record / "result.json").get("ap50")
    finals = {key[0]: key[2] for key in values if key[1] == 0}
    if ap50 is not None and finals.get("final/ap50") != ap50:
        lines.append(f"mlflow.db: {record.name} has final/ap50 {finals.get('final/ap50')}, its record {ap50}")
    return lines


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
