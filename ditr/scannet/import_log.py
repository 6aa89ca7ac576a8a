"""Turns the log of a training of ESAM into a run folder, so that its numbers stand beside those of ditr's own runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from ditr.files import write_json, write_text
from ditr.paths import portable_path
from ditr.record import provenance
from ditr.record.recording import Placement, draft
from ditr.record.state import RecordState, now
from ditr.scannet.esam_log import EsamLog, read_esam_log
from ditr.scannet.imported_record import metric_rows, result_of

VARIANT = "imported"
_STAMP = re.compile(r"_?(20\d\d[01]\d[0-3]\d_[0-2]\d[0-5]\d[0-5]\d)$")
"""What mmengine calls a training's folder, and puts behind its name."""


def import_log(path: Path, *, runs: Path, dataset: str, name: str | None = None) -> tuple[Placement, dict[str, Any]]:
    """Makes the record of a log; gives it and its result.json. The same file and name replace what they made.

    Parameters
    ----------
    dataset: name of the data set that the training was validated on; no log tells it.
    name: of the record; by default the training's own.

    Raises
    ------
    DitrError: the file is no log of a training.
    """
    log = read_esam_log(path)
    result = result_of(log, dataset=dataset)
    state = _state(log, path=path.resolve(), name=name)
    with draft(runs, name=f"{state.name}-{VARIANT}") as work:
        write_text(work.folder.metrics, "".join(json.dumps(row) + "\n" for row in metric_rows(log)))
        write_json(work.folder.result, result)
        write_json(work.folder.provenance, _provenance(log, path, result=result))
        return work.finish(state), result


def _state(log: EsamLog, *, path: Path, name: str | None) -> RecordState:
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
    return RecordState(
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


def _provenance(log: EsamLog, path: Path, *, result: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: int(log.facts[name]) if name in log.facts else None for name in ("seed", "batch_size")}
    return {
        "kind": f"imported, mmengine's {log.kind}",
        "source": portable_path(path.resolve()),
        "sha256": log.sha256,
        "log_says": dict(log.facts),
        "imported_at": now(),
        "imported_with": provenance.collect()["git"],
        "command": provenance.command(),
        "params": said | {"learning_rate": result["statistics"]["lr_first"]},
        "git": None,  # of the code that trained, which no log names
    }
