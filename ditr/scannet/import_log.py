"""Turns the log of a training of ESAM into a run folder, so that its numbers stand beside those of ditr's own runs."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from ditr.record import provenance
from ditr.record.folder import RunFolder, RunState, now, write_json, write_text
from ditr.record.views.mlflow_view import MlflowTracker
from ditr.record.views.results import Results
from ditr.scannet.esam_log import EsamLog, read_esam_log
from ditr.scannet.imported_record import lr_curve, metric_rows, result_of

VARIANT = "imported"
_STAMP = re.compile(r"_?(\d{8}_\d{6})$")
"""What mmengine calls a training's folder, and puts behind its name."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of a log."""

    folder: RunFolder
    log: EsamLog
    result: dict[str, Any]
    """As in result.json."""
    lr_curve: str
    """``yes``, or where it first differs from ESAM's."""


def import_log(path: Path, *, runs: Path, dataset: str, name: str | None = None) -> Imported:
    """Writes the run folder, its row of results and its MLflow run; the same file and name replace what they made.

    Parameters
    ----------
    dataset: name of the data set that the training was validated on; no log tells it.
    name: of the row and the folder; by default the training's own.

    Raises
    ------
    DitrError: the file is no log of a training.
    """
    log = read_esam_log(path)
    name = name or _name(log)
    key = hashlib.sha256(f"{log.sha256} {name}".encode()).hexdigest()[:10]
    folder = RunFolder(runs / f"{name}-{VARIANT}-{key}")
    imported = Imported(folder=folder, log=log, result=result_of(log, dataset=dataset), lr_curve=lr_curve(log))
    state = _state(log, name=name, key=key)
    with folder.lock():
        folder.path.mkdir(parents=True, exist_ok=True)
        _write(imported, state)
        Results(runs / "results.duckdb").record(folder)
        MlflowTracker(folder, dataset=dataset).publish(state, params=_params(imported))
    return imported


def _state(log: EsamLog, *, name: str, key: str) -> RunState:
    """A training that its log shows to have ended early counts as interrupted."""
    planned = log.facts.max_epochs
    ended_early = bool(log.windows) and planned is not None and (log.epochs_done or 0) < planned
    started = log.started or _stamped(log.path)
    ended = started + timedelta(seconds=log.seconds) if started and log.seconds is not None else None
    return RunState(
        run_key=key,
        spec_hash="",
        name=name,
        variant=VARIANT,
        seed=log.facts.seed,
        state="interrupted" if ended_early else "finished",
        started_at=started.isoformat(timespec="seconds") if started else now(),
        kind="imported",
        ended_at=ended.isoformat(timespec="seconds") if ended else None,
        wall_s=log.seconds,
    )


def _write(imported: Imported, state: RunState) -> None:
    folder, log = imported.folder, imported.log
    write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in metric_rows(log)))
    write_json(folder.result, imported.result)
    facts = {
        "kind": f"imported, mmengine's {log.kind}",
        "source": str(log.path.resolve()),
        "sha256": log.sha256,
        "lines": log.lines,
        "log_says": asdict(log.facts),
        "imported_at": now(),
        "imported_with": provenance.collect()["git"],
        "command": sys.argv,
        "git": None,  # of the code that trained, which no log names
    }
    write_json(folder.provenance, facts)
    write_text(folder.log_file, "".join(f"{line}\n" for line in _told(imported)))
    folder.set_state(state)


def _told(imported: Imported) -> Iterator[str]:
    log, result = imported.log, imported.result
    yield f"from {log.path.resolve()}, sha256 {log.sha256}: mmengine's {log.kind}, {log.lines} lines"
    yield f"{log.sessions} sessions, {log.superseded} records made again or abandoned, {log.cut} lines cut off"
    yield f"{len(log.windows)} windows, {len(log.validations)} validations, {result['epochs']} epochs done"
    yield f"LR curve as in ESAM: {imported.lr_curve}"
    yield from result["notes"]


def _params(imported: Imported) -> dict[str, Any]:
    facts, result = imported.log.facts, imported.result
    return {
        "variant": VARIANT,
        "seed": facts.seed,
        "dataset": result["dataset"],
        "checkpoint": facts.load_from,
        "epochs": result["epochs"],
        "batch_size": facts.batch_size,
        "learning_rate": result["statistics"]["lr_first"],
        "esam_compat": result["esam_compat"],
        "device": facts.device,
    }


def _name(log: EsamLog) -> str:
    """The experiment's, else that of the folder that mmengine keeps a training's folders in, else the file's."""
    kept_in = (above for above, part in pairwise(log.path.resolve().parts) if _STAMP.fullmatch(part))
    name = log.facts.experiment or next(kept_in, log.path.stem)
    return re.sub(r"[^a-z0-9]+", "_", _STAMP.sub("", name).lower()).strip("_") or "esam"


def _stamped(path: Path) -> datetime | None:
    """When the training began, by the names of the file and the folders it is in."""
    for part in (path.stem, *reversed(path.resolve().parts)):
        if found := _STAMP.search(part):
            try:
                return datetime.strptime(found[1], "%Y%m%d_%H%M%S")
            except ValueError:
                continue
    return None
