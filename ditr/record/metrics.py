"""The numbers of a record, declared once: results table, MLflow, tables of commands and comparisons read this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal["score", "cost", "fact"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number of ``result.json``, and a column of the results table."""

    name: str
    label: str
    """What tables call it, with its unit."""
    group: Group
    """Score: in 0..1, the higher the better. Cost: time, memory, weights. Fact: what was counted beside."""
    column: Literal["DOUBLE", "BIGINT"] = "DOUBLE"
    compared: bool = False
    """Whether arms are set beside each other in it."""


METRICS = (
    Metric(name="ap", label="AP", group="score", compared=True),
    Metric(name="ap50", label="AP50", group="score", compared=True),
    Metric(name="ap25", label="AP25", group="score", compared=True),
    Metric(name="ap_to_90", label="AP 0.50 to 0.90", group="score"),
    Metric(name="ap_to_95", label="AP 0.50 to 0.95", group="score"),
    Metric(name="valid_ratio", label="points with a 2D feature", group="fact"),
    Metric(name="fusion_2d_ratio", label="share of 2D in the gate", group="fact"),
    Metric(name="params_m", label="weights, M", group="cost", compared=True),
    Metric(name="step_ms", label="step, ms", group="cost", compared=True),
    Metric(name="data_ms", label="waiting for data, ms", group="cost"),
    Metric(name="infer_ms", label="frame, ms", group="cost", compared=True),
    Metric(name="peak_mem_mb", label="memory, MiB", group="cost", compared=True),
    Metric(name="unmatched_samples", label="samples without a match", group="fact", column="BIGINT"),
    Metric(name="nan_windows", label="windows with a NaN loss", group="fact", column="BIGINT"),
    Metric(name="failed_checks", label="failed checks", group="fact", column="BIGINT"),
)
"""step_ms is the median over all steps of a training (copy to the device, forward, loss, backward, update), data_ms the
mean that a step waited for its data, infer_ms the median over frames of forward pass and post-processing; none counts
reading data. peak_mem_mb is the most over training and evaluation, of what ``memory_of`` says."""

LABELS = {metric.name: metric.label for metric in METRICS}
"""What tables call each."""
SCORES = tuple(metric.name for metric in METRICS if metric.group == "score" and metric.compared)
"""The three that are shown everywhere."""
COSTS = {metric.name: metric.label for metric in METRICS if metric.group == "cost" and metric.compared}
"""What an arm costs, by name, and what tables call it."""
