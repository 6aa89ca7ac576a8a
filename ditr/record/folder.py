"""One record is one folder. Its files are the truth about it; MLflow and DuckDB are views made from them."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from ditr import layouts
from ditr.errors import Code, DitrError
from ditr.files import append, write_text
from ditr.paths import portable_text
from ditr.record.columns import RESULT
from ditr.record.shape import Provenance
from ditr.record.state import RecordState, now, read_state, unreadable, write_state
from ditr.spec.models import Spec
from ditr.spec.resolved_spec import read_resolved

_LOCK_S = 2.0
"""Longest wait for a lock: who only looks whether a record is locked holds it for a moment too."""
_TAIL_BYTES = 2**17
_SHOWN = ("state.json", "result.json", "metrics.jsonl", "frames.jsonl", "instances.parquet", "checks.jsonl")
"""The files that views are made from."""


@with_config(ConfigDict(strict=True))
class MetricsRow(TypedDict):
    """A line of ``metrics.jsonl``."""

    step: int
    at: float
    """Seconds since 1970."""
    metrics: dict[str, float]


_METRICS_ROW = TypeAdapter(MetricsRow)
_OBJECT = TypeAdapter(dict[str, Any])


class Record:
    """``runs/<name>-s<seed>-<key>/`` of a run, ``<name>-eval-<key>/`` of an evaluation, ``<name>-check-<key>/`` of a
    check, ``<name>-imported-<key>/`` of another program's log, and the files in it.

    Every file but the appended ones (metrics.jsonl, log.txt) is replaced whole. Methods that read raise
    ``UnreadableRecord`` for a damaged file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state_file = path / "state.json"
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
        self.plugins = path / "plugins"
        self.diverged = path / "diverged"
        self.training_state = path / "checkpoints" / "state.pt"
        self.weights = path / "checkpoints" / "model.safetensors"

    def __repr__(self) -> str:
        return f"Record({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The folder's, as text that every view can hold: what is no UTF-8 in it is ``?``."""
        return self.path.name.encode(errors="replace").decode()

    def state(self) -> RecordState | None:
        """The last state written, or None in a folder where nothing has started."""
        return read_state(self.state_file)

    def set_state(self, state: RecordState) -> RecordState:
        """Replaces the state; gives it as written, with the digests of its files if the record is finished."""
        finished = state.state == "finished"
        files = {file.name: _digest(file) for file in self._read_files if file.is_file()} if finished else {}
        return write_state(self.state_file, replace(state, files=files))

    def require_whole(self, file: Path) -> Path:
        """One of the files that are read of a record, which is there or not as when the record was finished.

        Nothing is known of the files before that, nor of the records of the first layout. Weights, saved states and
        frames that were kept to look at hold a digest of their own.

        Raises
        ------
        UnreadableRecord: it was changed since, or removed, or was not there; or the state cannot be read.
        """
        assert file in self._read_files
        state = self.state()
        if state is None or not state.has_digests:
            return file
        written = state.files.get(file.name)
        try:
            found = _digest(file) if file.exists() else None
        except OSError as error:
            raise unreadable(file, error) from error
        if found != written:
            what = "it is gone" if found is None else "it is not what was written: it does not fit its digest"
            raise unreadable(file, ValueError(f"{what} in {self.state_file.name}"))
        return file

    def require_all_whole(self) -> None:
        """``require_whole`` of every file that is read of the record; raises as it does."""
        for file in self._read_files:
            self.require_whole(file)

    @property
    def _read_files(self) -> tuple[Path, ...]:
        numbers = (self.result, self.metrics, self.frames, self.matches, self.instances, self.checks)
        return (self.spec, self.provenance, *numbers)

    def read_spec(self) -> Spec:
        """What it was made of, as it was resolved then; see ``read_resolved``."""
        return read_resolved(self.require_whole(self.spec))

    def read_result(self) -> dict[str, Any]:
        """What result.json says, its columns of the types that they must be; empty where there is none."""
        return _read_object(self.require_whole(self.result), RESULT) or {}

    def read_provenance(self) -> dict[str, Any] | None:
        """What the last session wrote of code, data and machine; None where there is none."""
        return _read_object(self.require_whole(self.provenance), Provenance)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one row of metrics."""
        row = {"step": step, "at": round(time.time(), 3), "metrics": dict(metrics)}
        append(self.metrics, json.dumps(row) + "\n")

    def logged(self) -> Iterator[MetricsRow]:
        """Rows of metrics.jsonl; a last line cut off by a crash is left out."""
        if not self.require_whole(self.metrics).is_file():
            return
        try:
            with self.metrics.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield _METRICS_ROW.validate_json(line)
        except (OSError, ValueError) as error:
            raise unreadable(self.metrics, error) from error

    def latest(self) -> list[MetricsRow]:
        """The newest rows of metrics.jsonl, some hundred, oldest first; what cannot be read is left out."""
        if not self.metrics.is_file():
            return []
        with self.metrics.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
        rows: list[MetricsRow] = []
        for line in lines:  # the first and the last may be parts of one
            with suppress(ValueError):
                rows.append(_METRICS_ROW.validate_json(line))
        return rows

    def drop_cut_line(self) -> None:
        """Removes what a crash left of a line, so that the next one begins on its own."""
        if self.metrics.is_file() and not self.metrics.read_bytes().endswith(b"\n"):
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in self.logged()))

    def rewind_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Removes the row that says the same as this one, and all after it: a resumed run logs them again."""
        before: list[str] = []
        for row in self.logged():
            if row["step"] > step or (row["step"] == step and row["metrics"].keys() & metrics.keys()):
                break
            before.append(json.dumps(row) + "\n")
        write_text(self.metrics, "".join(before))

    def append_log(self, text: str) -> None:
        """Appends lines to log.txt, with no path of this machine."""
        append(self.log_file, f"{now()} {portable_text(text.rstrip())}\n")

    def stamp(self) -> str:
        """What changes when a file that views are made from does, or when its process ends without a word; another for
        views of another layout."""
        sizes = []
        for name in _SHOWN:
            try:
                found = (self.path / name).stat()
            except OSError:  # not there, or a link that leads nowhere
                sizes.append("-")
            else:
                sizes.append(f"{found.st_mtime_ns:x}.{found.st_size:x}")
        return " ".join((f"v{layouts.VIEWS}", *sizes, "locked" if self.is_locked() else "free"))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a process writes this record.

        Raises
        ------
        DitrError: another process holds it, or nothing can be written here.
        """
        lock = FileLock(self._lock_file)
        try:
            self._lock_file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_LOCK_S, poll_interval=0.02)
        except Timeout as error:
            state = self.state()
            who = f"process {state.pid} on {state.host}" if state else "another process"
            fix = "Wait for it, or stop it and run again."
            raise DitrError(f"{who} runs this now", code=Code.RUN, where=str(self.path), fix=fix) from error
        except OSError as error:
            raise unwritable(self._lock_file, error) from error
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether some process writes this record now; looking keeps none from beginning to."""
        try:
            with self._lock_file.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look do not see each other
        except (FileNotFoundError, NotADirectoryError):
            return False
        except BlockingIOError:
            return True
        return False

    @property
    def _lock_file(self) -> Path:
        # Beside the folder, not in it, so that a replaced folder does not take its lock along.
        return self.path.parent / ".locks" / f"{self.path.name.rsplit('-', 1)[-1]}.lock"


def records_in(runs: Path) -> tuple[Record, ...]:
    """Every record in ``runs``, oldest first; those that cannot be read come first of all."""
    folders = [Record(file.parent) for file in runs.glob("*/state.json") if not file.parent.name.startswith(".")]
    return tuple(sorted(folders, key=lambda folder: (_started(folder), folder.path.name)))


def find_record(runs: Path, key: str) -> Record | None:
    """The folder of the record with this key, whatever its spec was called then."""
    return next((Record(file.parent) for file in sorted(runs.glob(f"*-{key}/state.json"))), None)


def unwritable(path: Path, error: OSError) -> DitrError:
    """What to say where a record cannot be begun or removed."""
    fix = "Let DITR_RUNS name a folder that can be written."
    return DitrError(f"cannot write here: {error.strerror}", code=Code.ENVIRONMENT, where=str(path), fix=fix)


def _read_object(path: Path, shape: type[BaseModel]) -> dict[str, Any] | None:
    """The object as it is in the file, which has the shape."""
    try:
        found = _OBJECT.validate_json(path.read_bytes())
        shape.model_validate(found)
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def _digest(file: Path) -> str:
    return xxhash.xxh3_128_hexdigest(file.read_bytes())


def _started(folder: Record) -> str:
    try:
        state = folder.state()
    except DitrError:
        return ""
    return state.started_at if state else ""
