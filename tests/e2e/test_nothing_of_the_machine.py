"""No file of a record, no report and no view names a path of the machine, so that all of them can be handed on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ditr.paths import project_dir
from tests.e2e.shell import Shell, options
from tests.reference.mmengine_log import Training, text_log

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def records(done: Shell, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Those of the runs, an evaluation, an imported log and a report; paths are given as a whole."""
    copied = tmp_path_factory.mktemp("copied") / "stores"
    shutil.copytree(done.stores, copied, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts", "results.duckdb"))
    done = replace(done, stores=copied)
    logs = tmp_path_factory.mktemp("logs")
    log = logs / "20260101_000000.log"
    log.write_text(text_log(Training(epochs=1), began=datetime(2026, 1, 1)))
    weights = "registry/checkpoints/synthrooms_res16unet_mini.safetensors"
    small = options(("dataset.name=synthrooms_tiny", "tracking.panels=1"))
    for arguments in (
        ("eval", str(project_dir() / "specs/baseline.yaml"), "--checkpoint", str(project_dir() / weights), *small),
        ("import", "esam-log", str(log), "--dataset", "scannet200_sv"),
        ("report", "baseline", "fpn_inject", "--out", str(done.stores / "report.html")),
    ):
        asked = done.ditr(*arguments)
        assert asked.returncode == 0, asked.stdout + asked.stderr
    return done


def test_records_reports_and_views_hold_no_path_of_the_machine(records: Shell) -> None:
    places = [str(records.stores.parent), str(Path.home()), str(project_dir()), sys.prefix, str(records.cache)]
    files = [file for file in records.runs.rglob("*") if file.is_file() and file.name != "mlflow.db"]
    kinds = {file.parent.name.rsplit("-", 2)[-2] for file in records.runs.glob("*/state.json")}
    assert kinds == {"s0", "eval", "imported"}
    for file in [*files, records.stores / "report.html"]:
        for part, content in contents(file):
            found = [place for place in places if f"{place}/".encode() in content]
            assert not found, f"{file.relative_to(records.stores)} {part}: {found}"


def test_of_mlflow_its_own_store_of_artefacts_alone_is_named(records: Shell) -> None:
    """It has no relative ones; the store is made again where the records lie."""
    script = f"import sqlite3; print('\\n'.join(sqlite3.connect({str(records.runs / 'mlflow.db')!r}).iterdump()))"
    dump = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    rest = dump.replace(f"file://{records.runs}/mlartifacts", "")
    for place in (str(records.stores), str(records.cache), str(project_dir()), str(Path.home()) + "/"):
        assert place not in rest


def contents(file: Path) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file, and those that it packs."""
    content = file.read_bytes()
    yield "", content
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            yield from ((name, packed.read(name)) for name in packed.namelist())
    if file.suffix == ".parquet":
        table = pq.read_table(file)
        yield "rows", str(table.to_pylist()).encode()
        yield "metadata", str(table.schema.metadata).encode()
