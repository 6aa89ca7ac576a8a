"""What the log of a training of ESAM says, as the values and metrics that ditr's own runs leave behind."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from statistics import median
from typing import Any

from ditr.scannet.esam_log import EsamLog, LogRecord

_SCORES = {"all_ap": "ap", "all_ap_50%": "ap50", "all_ap_25%": "ap25"}


def result_of(log: EsamLog, *, dataset: str) -> dict[str, Any]:
    """``result.json``: the columns of the results table that the log has a value for, and statistics."""
    last = log.validations[-1] if log.validations else None
    best = max(log.validations, key=lambda one: one.values["all_ap_50%"], default=None)  # ESAM keeps its weights
    rates, memory = ([one.values[name] for one in log.windows if name in one.values] for name in ("lr", "memory"))
    scores = _scores(last)
    return {
        "dataset": dataset,
        "split": "val",
        # ESAM validates one frame a batch; with several GPUs a log counts the batches of one.
        "n_frames": last.batches if last and log.facts.get("gpus") == "1" else None,
        "epochs": log.epochs_done,
        "checkpoint": log.facts.get("load_from"),
        **scores,
        "ap_to_90": scores["ap"],
        "step_ms": _median(map(_step_ms, log.windows)),
        "infer_ms": _finite(_step_ms(last)) if last else None,
        "peak_mem_mb": max(memory, default=None),
        "memory_of": "torch on the GPU" if memory else None,
        "nan_windows": sum(map(_is_blind, log.windows)) if log.windows else None,
        "esam_compat": True,
        "esam_differences": "",
        "device": log.facts.get("device"),
        "statistics": {
            "windows": len(log.windows),
            "validations": len(log.validations),
            "sessions": log.sessions,
            "superseded_records": log.superseded,
            "cut_lines": log.cut,
            "steps_per_epoch": log.steps_per_epoch,
            "lr_first": rates[0] if rates else None,
            "lr_last": rates[-1] if rates else None,
            "best_epoch": best.epoch if best else None,
            **{f"best_{name}": value for name, value in _scores(best).items()},
            **{f"nan_windows/{name}": count for name, count in _not_finite(log.windows).items()},
        },
    }


def metric_rows(log: EsamLog) -> list[dict[str, Any]]:
    """Rows of ``metrics.jsonl`` by step; finite values only, for JSON has no others."""
    rows: list[dict[str, Any]] = []
    blind = 0
    for window in log.windows:
        blind += _is_blind(window)
        rows.append({"step": window.step, "metrics": _metrics(window) | {"train/nan_windows": float(blind)}})
    rows += [{"step": log.step_of(one), "metrics": _metrics(one)} for one in log.validations]
    for row, record in zip(rows, (*log.windows, *log.validations), strict=True):
        row["at"] = (record.at or datetime.now()).timestamp()
    return sorted(rows, key=lambda row: int(row["step"]))


def _metrics(record: LogRecord) -> dict[str, float]:
    """By the names that ditr's own runs use; what these do not have keeps its own."""
    prefix, step_ms = ("train", "step_ms") if record.is_window else ("val", "infer_ms")
    names = _SCORES | {"memory": "mem_mb"}
    found = {names.get(name, re.sub(r"[^\w./ -]", "_", name)): value for name, value in record.values.items()}
    data_s = found.pop("data_time", math.nan)
    found.pop("time", None)
    found |= {"data_ms": 1e3 * data_s, step_ms: _step_ms(record)}
    return {f"{prefix}/{name}": value for name, value in found.items() if math.isfinite(value)}


def _step_ms(record: LogRecord) -> float:
    """Without waiting for data, which mmengine counts in its time and ditr does not; NaN where it is not logged."""
    return 1e3 * (record.values.get("time", math.nan) - record.values.get("data_time", math.nan))


def _scores(validation: LogRecord | None) -> dict[str, float | None]:
    return {ours: _finite(validation.values[name]) if validation else None for name, ours in _SCORES.items()}


def _is_blind(window: LogRecord) -> bool:
    return any("loss" in name and not math.isfinite(value) for name, value in window.values.items())


def _not_finite(windows: Iterable[LogRecord]) -> dict[str, int]:
    """By name of a loss, in how many windows it is NaN or infinite."""
    counts: dict[str, int] = {}
    for window in windows:
        for name in (name for name in window.values if "loss" in name):
            counts[name] = counts.get(name, 0) + (not math.isfinite(window.values[name]))
    return counts


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _median(values: Iterable[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return median(known) if known else None
