"""One run is one folder. Its files are the truth about the run; MLflow and DuckDB are views made from them."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from ditr.errors import Code, DitrError

State = Literal["running", "interrupted", "failed", "finished"]
Kind = Literal["run", "eval", "imported", "check"]
"""A training with its evaluation, an evaluation of given weights, what another program's log says, or a check of a spec
before any training."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What ``state.json`` holds: which run this is and how far it got."""

    run_key: str
    spec_hash: str
    name: str
    variant: str
    seed: int | None
    """None where nothing is drawn (an evaluation), or nobody knows (an imported log)."""
    state: State
    started_at: str
    """ISO 8601, UTC, of the first session."""
    kind: Kind = "run"
    ended_at: str | None = None
    wall_s: float | None = 0.0
    """Seconds over all sessions so far; None where nobody knows (an imported file without times)."""
    steps: int | None = None
    """Updates of the whole training; None until its data are open, and where there is none."""
    error: str | None = None
    mlflow_run: str | None = None
    """MLflow's id of the run, so that a resumed run continues it."""
    pid: int = 0
    host: str = ""


class RunFolder:
    """``runs/<name>-s<seed>-<key>/`` of a run, ``<name>-eval-<key>/`` of an evaluation, ``<name>-check-<key>/`` of a
    check, and the files in it.

    Every file but the appended ones (metrics.jsonl, log.txt) is written under a temporary name and renamed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = path / "spec.resolved.yaml"
        self.provenance = path / "provenance.json"
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        self.frames = path / "frames.jsonl"
        self.matches = path / "matches.parquet"
        self.instances = path / "instances.parquet"
        self.checks = path / "checks.jsonl"
        self.log_file = path / "log.txt"
        self.panels = path / "panels"
        self.kept = path / "kept"
        self.training_state = path / "checkpoints" / "state.pt"
        self.weights = path / "checkpoints" / "model.safetensors"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def state(self) -> RunState | None:
        """The last state written, or None in a folder where no run has started.

        Raises
        ------
        DitrError: state.json cannot be read.
        """
        file = self.path / "state.json"
        if not file.is_file():
            return None
        try:
            return RunState(**json.loads(file.read_text()))
        except (ValueError, TypeError) as error:
            fix = "Move the folder away and run the spec again."
            raise DitrError(f"unreadable run state: {error}", code=Code.RUN, where=str(file), fix=fix) from error

    def begin(self, state: RunState) -> RunState:
        """Makes the folder and marks it as running in this process; a line of metrics that a crash cut off goes."""
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        if self.metrics.is_file() and not self.metrics.read_bytes().endswith(b"\n"):
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in self.logged()))
        running = replace(state, state="running", ended_at=None, error=None, pid=os.getpid(), host=socket.gethostname())
        self.set_state(running)
        return running

    def set_state(self, state: RunState) -> None:
        write_json(self.path / "state.json", asdict(state))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one row of metrics; on disk when it returns."""
        row = {"step": step, "at": round(time.time(), 3), "metrics": dict(metrics)}
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def logged(self) -> Iterator[dict[str, Any]]:
        """Rows of metrics.jsonl; a last line cut off by a crash is left out."""
        if not self.metrics.is_file():
            return
        with self.metrics.open() as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)

    def rewind_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Removes the row that says the same as this one, and all after it: a resumed run logs them again."""
        kept: list[str] = []
        for row in self.logged():
            if row["step"] > step or (row["step"] == step and row["metrics"].keys() & metrics.keys()):
                break
            kept.append(json.dumps(row) + "\n")
        write_text(self.metrics, "".join(kept))

    def append_log(self, text: str) -> None:
        """Appends lines to log.txt."""
        with self.log_file.open("a") as file:
            file.write(f"{now()} {text.rstrip()}\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a process runs this folder.

        Raises
        ------
        DitrError: another process holds it.
        """
        try:
            with self._lock().acquire(timeout=0):
                yield
        except Timeout as error:
            state = self.state()
            who = f"process {state.pid} on {state.host}" if state else "another process"
            fix = "Wait for it, or stop it and run again."
            raise DitrError(f"{who} runs this now", code=Code.RUN, where=str(self.path), fix=fix) from error

    def is_locked(self) -> bool:
        """Whether some process runs this folder now."""
        try:
            with self._lock().acquire(timeout=0):
                return False
        except Timeout:
            return True

    def _lock(self) -> FileLock:
        # Beside the folder, not in it, so that a replaced folder does not take its lock along.
        folder = self.path.parent / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{self.path.name.rsplit('-', 1)[-1]}.lock")


def run_folders(runs: Path) -> tuple[RunFolder, ...]:
    """Every run folder in ``runs``, oldest first."""
    folders = [RunFolder(file.parent) for file in runs.glob("*/state.json")]
    return tuple(sorted(folders, key=lambda folder: (_started(folder), folder.path.name)))


def find_run(runs: Path, key: str) -> RunFolder | None:
    """The folder of the run with this key, whatever the spec was called then."""
    return next((RunFolder(file.parent) for file in sorted(runs.glob(f"*-{key}/state.json"))), None)


def now() -> str:
    """The time as run folders write it: ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_text(path: Path, text: str) -> None:
    """Writes the file under a temporary name beside it and renames it, so that no reader sees half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes indented JSON as ``write_text`` does."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def _started(folder: RunFolder) -> str:
    state = folder.state()
    return state.started_at if state else ""
