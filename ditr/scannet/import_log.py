"""Turns the log of a training of ESAM into a run folder, so that its numbers stand beside those of ditr's own runs."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from ditr.record import provenance
from ditr.record.folder import RunFolder, RunState, now, write_json, write_text
from ditr.record.views.mlflow_view import MlflowTracker
from ditr.record.views.results import Results
from ditr.scannet.esam_log import EsamLog, read_esam_log
from ditr.scannet.imported_record import metric_rows, result_of

VARIANT = "imported"
_STAMP = re.compile(r"_?(20\d\d[01]\d[0-3]\d_[0-2]\d[0-5]\d[0-5]\d)$")
"""What mmengine calls a training's folder, and puts behind its name."""


def import_log(path: Path, *, runs: Path, dataset: str, name: str | None = None) -> tuple[RunFolder, dict[str, Any]]:
    """Makes the run folder of a log, its row of results and its MLflow run; gives the folder and its result.json.

    The same file and name replace what they made.

    Parameters
    ----------
    dataset: name of the data set that the training was validated on; no log tells it.
    name: of the row and the folder; by default the training's own.

    Raises
    ------
    DitrError: the file is no log of a training.
    """
    log = read_esam_log(path)
    result = result_of(log, dataset=dataset)
    state = _state(log, path=path.resolve(), name=name)
    folder = RunFolder(runs / f"{state.name}-{VARIANT}-{state.run_key}")
    _write(
        folder,
        state,
        result=result,
        metrics=metric_rows(log),
        source=_provenance(log, path),
        params=_params(log, result),
    )
    return folder, result


def _write(
    folder: RunFolder,
    state: RunState,
    *,
    result: Mapping[str, Any],
    metrics: list[dict[str, Any]],
    source: Mapping[str, Any],
    params: dict[str, Any],
) -> None:
    with folder.lock():
        folder.path.mkdir(parents=True, exist_ok=True)
        write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in metrics))
        write_json(folder.result, result)
        write_json(folder.provenance, source)
        folder.set_state(state)
        Results(folder.path.parent / "results.duckdb").record(folder)
        MlflowTracker(folder, dataset=result["dataset"]).publish(state, params=params)


def _state(log: EsamLog, *, path: Path, name: str | None) -> RunState:
    """A training that its log shows to have ended early counts as interrupted.

    Where the log does not say them, name and beginning are those of the folder that mmengine made for the training.
    """
    parts = pairwise(path.with_suffix("").parts)
    stamped = ((above, found[1]) for above, part in parts if (found := _STAMP.fullmatch(part)))
    above, stamp = next(stamped, (path.stem, None))
    if name is None:
        named = _STAMP.sub("", log.facts.get("experiment") or above)
        name = re.sub(r"[^a-z0-9]+", "_", named.lower()).strip("_") or "esam"
    started = log.started or (datetime.strptime(stamp, "%Y%m%d_%H%M%S") if stamp else None)
    ended = started + timedelta(seconds=log.seconds) if started and log.seconds is not None else None
    ended_early = bool(log.windows) and (log.epochs_done or 0) < int(log.facts.get("max_epochs", 0))
    return RunState(
        run_key=hashlib.sha256(f"{log.sha256} {name}".encode()).hexdigest()[:10],
        spec_hash="",
        name=name,
        variant=VARIANT,
        seed=int(log.facts["seed"]) if "seed" in log.facts else None,
        state="interrupted" if ended_early else "finished",
        started_at=started.isoformat(timespec="seconds") if started else now(),
        kind="imported",
        ended_at=ended.isoformat(timespec="seconds") if ended else None,
        wall_s=log.seconds,
    )


def _provenance(log: EsamLog, path: Path) -> dict[str, Any]:
    return {
        "kind": f"imported, mmengine's {log.kind}",
        "source": str(path.resolve()),
        "sha256": log.sha256,
        "log_says": dict(log.facts),
        "imported_at": now(),
        "imported_with": provenance.collect()["git"],
        "command": sys.argv,
        "git": None,  # of the code that trained, which no log names
    }


def _params(log: EsamLog, result: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: int(log.facts[name]) if name in log.facts else None for name in ("seed", "batch_size")}
    told = {name: result[name] for name in ("dataset", "checkpoint", "epochs", "esam_compat", "device")}
    return {"variant": VARIANT, "learning_rate": result["statistics"]["lr_first"]} | said | told
