"""The tables that ``ditr query`` reads, and what a record's files hold of them."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, create_model

from ditr.record.metrics import METRICS

_NUMBERS = {metric.name: metric.column for metric in METRICS}
RESULT_COLUMNS: dict[str, str] = {
    "run_key": "VARCHAR PRIMARY KEY",
    "kind": "VARCHAR",
    "name": "VARCHAR",
    "variant": "VARCHAR",
    "seed": "UBIGINT",
    "spec_hash": "VARCHAR",
    "dataset": "VARCHAR",
    "dataset_digest": "VARCHAR",
    "split": "VARCHAR",
    "n_frames": "BIGINT",
    "excluded_frames": "BIGINT",
    "intrinsics": "VARCHAR",
    "feature_source": "VARCHAR",
    "sampling": "VARCHAR",
    "control": "VARCHAR",
    "fusion": "VARCHAR",
    "pooling": "VARCHAR",
    "scales": "VARCHAR",
    "input_size": "VARCHAR",
    "epochs": "INTEGER",
    "checkpoint": "VARCHAR",
    **_NUMBERS,
    "memory_of": "VARCHAR",
    "esam_compat": "BOOLEAN",
    "esam_differences": "VARCHAR",
    "wall_s": "DOUBLE",
    "engine": "VARCHAR",
    "precision": "VARCHAR",
    "device": "VARCHAR",
    "git": "VARCHAR",
    "dirty": "BOOLEAN",
    "state": "VARCHAR",
    "started_at": "TIMESTAMP",
    "folder": "VARCHAR",
}
"""One row a run, an evaluation, an imported log or a check of a spec (``kind`` run, eval, imported, check). Scales are
written as ``8,4,2,1``, the parts of a fusion as ``injection,bifusion``; what a record has no value for yet is null, and
failed_checks is 0 where a spec passed all. ``metrics.METRICS`` says what the numbers are; result.json has more. A
record that cannot be read is a row whose name is its folder's and whose state says ``unreadable`` and why."""

OF_STATE = ("run_key", "kind", "name", "variant", "seed", "spec_hash", "wall_s", "state", "started_at", "folder")
"""Columns that do not come from result.json."""

FRAME_COLUMNS = {
    "run_key": "VARCHAR",
    "frame_id": "VARCHAR",
    "scene": "VARCHAR",
    "n_points": "BIGINT",
    "n_void": "BIGINT",
    "n_superpoints": "BIGINT",
    "n_gt": "BIGINT",
    "n_gt_small": "BIGINT",
    "n_pred": "BIGINT",
    "best_iou": "DOUBLE",
    "valid_ratio": "DOUBLE",
    "depth_ok": "DOUBLE",
    "boundary_ok": "DOUBLE",
    "fusion_2d_ratio": "DOUBLE",
    "infer_ms": "DOUBLE",
}
"""One row a record and frame of its final evaluation."""

INSTANCE_COLUMNS = {
    "run_key": "VARCHAR",
    "frame_id": "VARCHAR",
    "instance": "BIGINT",
    "n_points": "BIGINT",
    "size_m": "DOUBLE",
    "distance_m": "DOUBLE",
    "valid_ratio": "DOUBLE",
    "class_name": "VARCHAR",
    "frequency": "VARCHAR",
    "texture_only": "BOOLEAN",
    "best_iou": "DOUBLE",
}
"""One row a record and ground-truth instance of its final evaluation, as evaluation/instance_facts.py says."""

METRIC_COLUMNS = {"run_key": "VARCHAR", "step": "BIGINT", "name": "VARCHAR", "value": "DOUBLE"}
"""Long form of metrics.jsonl."""

CHECK_COLUMNS = {
    "run_key": "VARCHAR",
    "name": "VARCHAR",
    "variant": "VARCHAR",
    "stage": "INTEGER",
    "check_name": "VARCHAR",
    "value": "DOUBLE",
    "bound": "VARCHAR",
    "passed": "BOOLEAN",
    "detail": "VARCHAR",
}
"""One row a check of a spec, whose name and variant stand with it. Stages are 1 features, 2 projection, 3 pyramid, 4
injection; bound is what the value was held against, such as ``<= 0.05``, or ``reported``."""

TABLES = {
    "results": RESULT_COLUMNS,
    "frames": FRAME_COLUMNS,
    "instances": INSTANCE_COLUMNS,
    "metrics": METRIC_COLUMNS,
    "checks": CHECK_COLUMNS,
}

_PYTHON = {"VARCHAR": str, "DOUBLE": float, "BIGINT": int, "INTEGER": int, "BOOLEAN": bool}
RESULT = create_model(
    "Result",
    __config__=ConfigDict(strict=True, extra="allow", allow_inf_nan=False),
    **{  # type: ignore[call-overload]
        name: (_PYTHON[kind] | None, None) for name, kind in RESULT_COLUMNS.items() if name not in OF_STATE
    },
)
"""What result.json must be for its columns to be read; it may hold more."""


def result_columns(result: dict[str, Any]) -> dict[str, Any]:
    """The columns of the results table that result.json fills, None for what it does not say."""
    return {name: result.get(name) for name in RESULT_COLUMNS if name not in OF_STATE}
