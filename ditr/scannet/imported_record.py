"""What the log of a training of ESAM says, as the values and metrics that ditr's own runs leave behind."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from statistics import median
from typing import Any

from ditr.scannet.esam_log import EsamLog
from ditr.scannet.mmengine_reader import Validation, Window
from ditr.spec.models import ScheduleSpec
from ditr.training.schedule import learning_rate

ESAM_SCHEDULE = ScheduleSpec(epochs=128, learning_rate=1e-4)
"""ESAM's single-view training (docs/reference/esam.md, Schedule)."""
LR_TOLERANCE = 1e-3
"""Relative; a text log prints five digits."""
_NO_RATE = 1e-9
"""What a rate may be where ESAM's is 0."""
_SCORES = {"all_ap": "ap", "all_ap_50%": "ap50", "all_ap_25%": "ap25"}
_RENAMED = _SCORES | {"memory": "mem_mb"}
_TIMES = {"time", "data_time"}


def result_of(log: EsamLog, *, dataset: str) -> dict[str, Any]:
    """``result.json``: the columns of the results table that the log has a value for, statistics and notes."""
    last = log.validations[-1] if log.validations else None
    scores = _scores(last) if last else {}
    return {
        "dataset": dataset,
        "split": "val",
        # ESAM validates one frame a batch; with several GPUs a log counts the batches of one.
        "n_frames": last.batches if last and log.facts.gpus == 1 else None,
        "epochs": log.epochs_done,
        "checkpoint": log.facts.load_from,
        **{name: scores.get(name) for name in _SCORES.values()},
        "ap_to_90": scores.get("ap"),
        "step_ms": _median(_step_ms(window.values) for window in log.windows),
        "infer_ms": _step_ms(last.values) if last else None,
        "peak_mem_mb": max(_logged(log, "memory"), default=None),
        "memory_of": "torch on the GPU" if _logged(log, "memory") else None,
        "nan_windows": sum(map(_is_blind, log.windows)) if log.windows else None,
        "esam_compat": True,
        "esam_differences": "",
        "device": log.facts.device,
        "statistics": _statistics(log),
        "notes": _notes(log),
    }


def metric_rows(log: EsamLog) -> list[dict[str, Any]]:
    """Rows of ``metrics.jsonl`` by step; finite values only, for JSON has no others."""
    unknown = datetime.now()
    rows: list[dict[str, Any]] = []
    blind = 0
    for window in log.windows:
        blind += _is_blind(window)
        metrics = _metrics("train", window.values) | {"train/nan_windows": float(blind)}
        rows.append({"step": window.step, "at": (window.at or unknown).timestamp(), "metrics": metrics})
    for one in log.validations:
        at = (one.at or unknown).timestamp()
        rows.append({"step": log.step_of(one), "at": at, "metrics": _metrics("val", one.values)})
    return sorted(rows, key=lambda row: int(row["step"]))


def lr_curve(log: EsamLog) -> str:
    """Whether every window has ESAM's learning rate: ``yes``, or where it first has another."""
    rated = [window for window in log.windows if "lr" in window.values]
    for window in rated:
        if window.epoch > ESAM_SCHEDULE.epochs:
            return f"no, it goes on after epoch {ESAM_SCHEDULE.epochs}"
        expected = learning_rate(ESAM_SCHEDULE, window.epoch - 1, esam_compat=True)
        rate = window.values["lr"]
        if not math.isclose(rate, expected, rel_tol=LR_TOLERANCE, abs_tol=_NO_RATE):
            return f"no, epoch {window.epoch} has {rate:.4g}, ESAM's {expected:.4g}"
    return "yes" if rated else "no learning rate in the log"


def _statistics(log: EsamLog) -> dict[str, float | None]:
    rates = _logged(log, "lr")
    scored = [one for one in log.validations if _scores(one).get("ap50") is not None]
    best = max(scored, key=lambda one: one.values["all_ap_50%"], default=None)  # as ESAM keeps its best weights
    found: dict[str, float | None] = {
        "windows": len(log.windows),
        "validations": len(log.validations),
        "sessions": log.sessions,
        "superseded_records": log.superseded,
        "cut_lines": log.cut,
        "steps_per_epoch": log.steps_per_epoch,
        "batch_size": log.facts.batch_size,
        "max_epochs": log.facts.max_epochs,
        "iteration_ms": _median(1e3 * time for time in _logged(log, "time")),
        "lr_first": rates[0] if rates else None,
        "lr_last": rates[-1] if rates else None,
        "best_epoch": best.epoch if best else None,
    }
    found |= {f"best_{name}": value for name, value in (_scores(best) if best else {}).items()}
    return found | {f"nan_windows/{name}": count for name, count in _not_finite(log.windows).items()}


def _notes(log: EsamLog) -> list[str]:
    blind = sum(map(_is_blind, log.windows))
    each = ", ".join(f"{name} {count}" for name, count in _not_finite(log.windows).items())
    windows = (
        f"{blind} of {len(log.windows)} windows have a loss that is not finite ({each or 'none'}): one iteration makes"
        " the mean of its window so; such values are in no metric"
    )
    times = (
        "step_ms and infer_ms are mmengine's time less its data_time, which ditr does not count either: the median of"
        " the windows, and the last validation's mean a batch"
    )
    memory = (
        "peak_mem_mb is torch's counter, without what the sparse library allocates beside it; runs of ditr give the"
        " device's"
    )
    wall = {
        "text log": "wall_s is from the first to the last message of every session",
        "scalars": "wall_s is the time of the iterations, without validations and pauses",
    }
    return [windows, times, memory, wall[log.kind]]


def _metrics(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """By the names that ditr's own runs use; what these do not have keeps its own."""
    found = {_RENAMED.get(name, name): value for name, value in values.items() if name not in _TIMES}
    found |= {
        ours: 1e3 * values[name]
        for name, ours in (("time", "iteration_ms"), ("data_time", "data_ms"))
        if name in values
    }
    step_ms = _step_ms(values)
    if step_ms is not None:
        found["step_ms" if prefix == "train" else "infer_ms"] = step_ms
    named = {f"{prefix}/{re.sub(r'[^a-zA-Z0-9_./ -]', '_', name)}": value for name, value in found.items()}
    return {name: value for name, value in named.items() if math.isfinite(value)}


def _step_ms(values: Mapping[str, float]) -> float | None:
    """Without waiting for data, which mmengine counts in its time and ditr does not."""
    if not values.keys() >= _TIMES:
        return None
    return _finite(1e3 * (values["time"] - values["data_time"]))


def _scores(validation: Validation) -> dict[str, float | None]:
    return {ours: _finite(validation.values[name]) for name, ours in _SCORES.items() if name in validation.values}


def _is_blind(window: Window) -> bool:
    return any("loss" in name and not math.isfinite(value) for name, value in window.values.items())


def _not_finite(windows: Iterable[Window]) -> dict[str, int]:
    """By name, in how many windows it is NaN or infinite: every loss, and whatever else ever is."""
    counts: Counter[str] = Counter()
    for window in windows:
        for name, value in window.values.items():
            if "loss" in name or not math.isfinite(value):
                counts[name] += not math.isfinite(value)
    return dict(counts)


def _logged(log: EsamLog, name: str) -> list[float]:
    return [window.values[name] for window in log.windows if name in window.values]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return median(known) if known else None
