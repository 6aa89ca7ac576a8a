"""Which record a folder is, and how far it got: ``state.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import xxhash
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ditr import layouts
from ditr.errors import Code, DitrError
from ditr.files import parse_json, write_json

State = Literal["running", "interrupted", "failed", "finished"]
Kind = Literal["run", "eval", "imported", "check"]
"""A training with its evaluation, an evaluation of given weights, what another program's log says, or a check of a spec
before any training."""
_FIRST_LAYOUT = 1
"""Without digests."""
_STRICT = ConfigDict(strict=True, extra="ignore")
"""Earlier versions wrote more fields."""


class UnreadableRecord(DitrError):
    """A file of a record is damaged, or of a newer ditr, or says what no ditr writes; ``where`` is the file."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RecordState:
    """What ``state.json`` holds."""

    schema: int = _FIRST_LAYOUT
    """Of the whole folder, as it was read; what is written is of the layout of today."""
    run_key: str
    spec_hash: str
    """Empty where there is no spec: in an imported log."""
    name: str
    variant: str
    seed: int | None
    """None where nothing is drawn (an evaluation), or nobody knows (an imported log)."""
    kind: Kind = "run"
    state: State = "running"
    started_at: str
    """ISO 8601, UTC, of the first session."""
    ended_at: str | None = None
    wall_s: float | None = 0.0
    """Seconds over all sessions so far; None where nobody knows (an imported file without times)."""
    steps: int | None = None
    """Updates of the whole training; None until its data are open, and where there is none."""
    error: str | None = None
    pid: int = 0
    host: str = ""
    files: dict[str, str] = field(default_factory=dict)
    """xxh3-128 of the files of a finished record, by name, as ``Record.require_whole`` holds them against it."""

    @property
    def has_digests(self) -> bool:
        """Whether the record is finished, and of a layout that notes what its files were then."""
        return self.state == "finished" and self.schema > _FIRST_LAYOUT


_STATE = TypeAdapter(RecordState)


def read_state(path: Path) -> RecordState | None:
    """None where there is no such file.

    Raises
    ------
    UnreadableRecord: it is damaged, or a newer ditr wrote it.
    """
    try:
        raw = path.read_bytes()
        content = parse_json(raw)
        _require_known(content, path)
        _require_as_written(content)
        state = _STATE.validate_json(raw)
        datetime.fromisoformat(state.started_at)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return state


def _require_known(content: object, path: Path) -> None:
    try:
        layouts.require_known(content, newest=layouts.RECORD, code=Code.RUN, where=str(path))
    except layouts.NewerLayout as error:
        raise UnreadableRecord(error.what, code=error.code, where=error.where, fix=error.fix) from error


def _require_as_written(content: object) -> None:
    if not isinstance(content, dict):
        return  # the wrong shape, which is said of it
    if "digest" not in content and content.get("schema", _FIRST_LAYOUT) == _FIRST_LAYOUT:
        return
    if content.get("digest") != _digest({name: value for name, value in content.items() if name != "digest"}):
        raise ValueError("it is not what was written: it does not fit its digest")


def _digest(content: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


def write_state(path: Path, state: RecordState) -> RecordState:
    """Replaces the file; gives the state as it is written, in the layout of today."""
    written = replace(state, schema=layouts.RECORD)
    content = asdict(written)
    write_json(path, content | {"digest": _digest(content)})
    return written


def unreadable(path: Path, error: Exception) -> UnreadableRecord:
    """What to say of a file of a record that raised ``error`` when it was read."""
    return UnreadableRecord(
        f"unreadable {path.name}: {_reason(error)}",
        code=Code.RUN,
        where=str(path),
        fix="Restore the file, or move its folder away; a run can then be run again.",
    )


def now() -> str:
    """The time as records write it: ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first: Any = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return (str(error) or type(error).__name__).splitlines()[0]
