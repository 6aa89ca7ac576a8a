"""Results and comparisons as notebooks show them: HTML tables, and data frames to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ditr.evaluation.resampling import Metric
from ditr.paths import runs_dir
from ditr.record.metrics import COSTS, SCORES
from ditr.record.views.results import Results
from ditr.report.answers import interval_text, metric_name, p_text
from ditr.report.arms import all_arms
from ditr.report.compare import Comparison, compare

if TYPE_CHECKING:
    import pandas

_HEADLINE = (
    f"select name, variant, seed, {', '.join(SCORES)}, params_m, step_ms, state from results order by started_at"
)


@dataclass(frozen=True)
class ResultsView:
    """The results table of a folder of runs."""

    results: Results

    def __repr__(self) -> str:
        return f"ResultsView({str(self.results.runs)!r})"

    def df(self, sql: str = "select * from results order by started_at") -> pandas.DataFrame:
        """The answer to a reading statement, as ``ditr query`` takes them; raises DitrError as it does."""
        import pandas

        rows = self.results.query(sql)
        return pandas.DataFrame(list(rows.rows), columns=list(rows.columns))

    def _repr_html_(self) -> str:
        rows = self.results.query(_HEADLINE)
        return _table(rows.columns, [[_cell(value) for value in row] for row in rows.rows])


@dataclass(frozen=True)
class ComparisonView:
    """A comparison and its tables."""

    comparison: Comparison

    def __repr__(self) -> str:
        arms = ", ".join(one.arm.label for one in self.comparison.arms)
        answers = "; ".join(f"{one.question} {one.verdict}" for one in self.comparison.answers)
        return f"ComparisonView({arms}: {answers})"

    def df(self) -> pandas.DataFrame:
        """One row an arm and seed, with its three scores."""
        import pandas

        rows = [
            {"arm": one.arm.label, "seed": seed} | {metric: spread.values[at] for metric, spread in one.spreads.items()}
            for one in self.comparison.arms
            for at, seed in enumerate(one.arm.seeds)
        ]
        return pandas.DataFrame(rows)

    def _repr_html_(self) -> str:
        found = self.comparison
        answers = "".join(
            f"<p><b>{escape(one.question)} {one.verdict.capitalize()}.</b> {escape(' '.join(one.evidence))}</p>"
            for one in found.answers
        )
        caveats = "".join(f"<p><i>{escape(caveat)}</i></p>" for caveat in found.caveats)
        return answers + arms_table(found) + contrasts_table(found) + caveats


def results_view(runs: str | Path | None) -> ResultsView:
    """Of the folder, or of the project's."""
    return ResultsView(Results(_folder(runs)))


def comparison_view(
    names: Sequence[str], *, metric: Metric, allow: Sequence[str], runs: str | Path | None
) -> ComparisonView:
    """Of the arms called so, or of all."""
    arms = all_arms(_folder(runs))
    return ComparisonView(compare(arms.called(names) if names else arms, metric=metric, allow=allow))


def _folder(runs: str | Path | None) -> Path:
    return runs_dir() if runs is None else Path(runs)


def arms_table(found: Comparison) -> str:
    """A row an arm: scores over seeds and costs; the best is bold."""
    rows = []
    for one in found.arms:
        cells = [escape(one.arm.label), str(one.spreads[found.metric].n)]
        cells += [_spread(spread.mean, spread.sd) for spread in one.spreads.values()]
        cells += [_cell(value) for value in one.costs.values()]
        rows.append([f"<b>{cell}</b>" for cell in cells] if one.arm.label == found.best else cells)
    metrics = [metric_name(metric) for metric in found.arms[0].spreads]
    return _table(("arm", "seeds", *metrics, *COSTS.values()), rows)


def contrasts_table(found: Comparison) -> str:
    """A row a difference, with its interval and p."""
    rows = [
        [
            escape(f"{one.label} - {one.reference}"),
            f"{one.difference.value:+.3f}",
            interval_text(one.difference),
            escape(p_text(one.p_holm)),
        ]
        for one in found.contrasts
    ]
    return _table(("difference", metric_name(found.metric), "95 % interval", "p (Holm)"), rows)


def _spread(mean: float, sd: float | None) -> str:
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} \u00b1 {sd:.3f}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return escape(str(value))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
