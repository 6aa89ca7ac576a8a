from __future__ import annotations

from typing import get_args

from ditr.cli.compare import MetricName
from ditr.evaluation.evaluate import Scores
from ditr.evaluation.resampling import Metric
from ditr.record.columns import RESULT_COLUMNS
from ditr.record.metrics import COSTS, METRICS, SCORES


def test_the_metrics_of_evaluation_commands_and_tables_are_those_of_the_one_table() -> None:
    assert get_args(Metric) == SCORES == tuple(one.value for one in MetricName)
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert {metric.name for metric in METRICS if metric.group == "score"} == set(Scores.__annotations__)
    assert set(names) <= RESULT_COLUMNS.keys()
    assert set(COSTS) < set(names)
