"""``import ditr`` in a notebook: results as a table, and arms compared.

import ditr
ditr.results().df()
ditr.compare("baseline", "bifusion", "fpn_inject", metric="ap50")
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ditr.evaluation.resampling import Metric
    from ditr.report.notebook import ComparisonView, ResultsView

__all__ = ["__version__", "compare", "results"]


def __getattr__(name: str) -> str:
    """``ditr.__version__``, that of the installed package."""
    if name == "__version__":
        return version("ditr")
    raise AttributeError(f"module 'ditr' has no attribute '{name}'")


def results(runs: str | Path | None = None) -> ResultsView:
    """The results of a folder of runs; by default that of the project (``DITR_RUNS``)."""
    from ditr.report.notebook import results_view

    return results_view(runs)


def compare(
    *arms: str, metric: Metric = "ap50", allow: tuple[str, ...] = (), runs: str | Path | None = None
) -> ComparisonView:
    """Finished runs by name, beside each other, as ``ditr compare`` does; all there are without a name."""
    from ditr.report.notebook import comparison_view

    return comparison_view(arms, metric=metric, allow=allow, runs=runs)
