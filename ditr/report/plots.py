"""The figures of a report as plotly draws them; every arm keeps one colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from ditr.evaluation.instance_ap import precision_recall
from ditr.report.answers import metric_name
from ditr.report.compare import Comparison
from ditr.report.stratum_contrasts import StratumContrast

PALETTE = ("#30638e", "#0b6e4f", "#d1495b", "#edae49", "#6f4e7c", "#3a86a8", "#b5651d", "#8d99ae", "#444444")
_GRID = "#e8e8e4"
_RECALL = np.linspace(0, 1, 101)


def colours(comparison: Comparison) -> dict[str, str]:
    """By label of an arm."""
    return {one.arm.label: PALETTE[at % len(PALETTE)] for at, one in enumerate(comparison.arms)}


def difference_figure(comparison: Comparison) -> go.Figure:
    """Each contrast with its interval, and a line at no difference."""
    figure = _figure(height=90 + 44 * len(comparison.contrasts))
    for one in reversed(comparison.contrasts):
        found = one.difference
        figure.add_trace(
            go.Scatter(
                x=[found.value],
                y=[f"{one.label} − {one.reference}"],
                error_x={"type": "data", "array": [found.high - found.value], "thickness": 2.5, "width": 0},
                mode="markers",
                marker={"size": 11, "color": colours(comparison)[one.label]},
                hovertemplate=f"%{{x:+.3f}} ({found.low:+.3f} to {found.high:+.3f})<extra></extra>",
                showlegend=False,
            )
        )
    figure.add_vline(x=0, line_color="#333", line_width=1)
    return figure.update_xaxes(title=f"difference in {metric_name(comparison.metric)}, 95 % interval")


def learning_figure(comparison: Comparison, *, name: str, title: str) -> go.Figure:
    """A metric of metrics.jsonl over the epochs, a thin line a seed."""
    figure = _figure(height=360)
    for one in comparison.arms:
        epochs = one.arm.spec.schedule.epochs
        for run in one.arm.runs:
            rows = [(row["step"], row["metrics"][name]) for row in run.folder.logged() if name in row["metrics"]]
            last = max((step for step, _ in rows), default=1)
            figure.add_trace(
                go.Scatter(
                    x=[epochs * step / last for step, _ in rows],
                    y=[value for _, value in rows],
                    mode="lines+markers",
                    line={"color": colours(comparison)[one.arm.label], "width": 1.4},
                    marker={"size": 4},
                    name=one.arm.label,
                    legendgroup=one.arm.label,
                    showlegend=run is one.arm.runs[0],
                    hovertemplate=f"{one.arm.label}, seed {run.seed}: %{{y:.3f}} after epoch %{{x:.0f}}<extra></extra>",
                )
            )
    return figure.update_xaxes(title="epochs").update_yaxes(title=title)


def recall_figure(comparison: Comparison, *, threshold: float) -> go.Figure:
    """Precision over recall at one IoU threshold, the mean over seeds at each recall."""
    figure = _figure(height=420)
    for one in comparison.arms:
        curves = [precision_recall(table, threshold=threshold) for table in one.arm.tables]
        mean = np.mean(
            [np.interp(_RECALL, curve.recall[::-1], curve.precision[::-1], right=0.0) for curve in curves],
            axis=0,
        )
        figure.add_trace(
            go.Scatter(
                x=_RECALL.tolist(),
                y=mean.tolist(),
                mode="lines",
                line={"color": colours(comparison)[one.arm.label], "width": 2},
                name=one.arm.label,
                hovertemplate="recall %{x:.2f}, precision %{y:.3f}",
            )
        )
    return figure.update_xaxes(title="recall").update_yaxes(title="precision", range=[0, 1.02])


def parts_figure(comparison: Comparison, parts: Sequence[StratumContrast], *, of: str) -> go.Figure:
    """What each arm gains on the parts of one kind, with intervals."""
    figure = _figure(height=380)
    for one in comparison.arms:
        mine = [part for part in parts if part.label == one.arm.label and part.stratum.of == of]
        if not mine:
            continue
        figure.add_trace(
            go.Bar(
                x=[f"{part.stratum.name}<br>{part.stratum.num_instances} instances" for part in mine],
                y=[part.difference.value for part in mine],
                error_y={"type": "data", "array": [part.difference.high - part.difference.value for part in mine]},
                marker_color=colours(comparison)[one.arm.label],
                name=one.arm.label,
                hovertemplate="%{y:+.3f}",
            )
        )
    return figure.update_yaxes(title=f"{metric_name(comparison.metric)} gained on {comparison.reference.label}")


def cost_figure(comparison: Comparison, *, cost: str, title: str) -> go.Figure | None:
    """The metric over a cost, an arm a point; None where an arm has no such number."""
    values: Mapping[str, float | None] = {one.arm.label: one.costs[cost] for one in comparison.arms}
    if any(value is None for value in values.values()):
        return None
    figure = _figure(height=360)
    for one in comparison.arms:
        spread = one.spreads[comparison.metric]
        figure.add_trace(
            go.Scatter(
                x=[values[one.arm.label]],
                y=[spread.mean],
                error_y={"type": "data", "array": [spread.sd or 0.0]},
                mode="markers+text",
                text=[one.arm.label],
                textposition="top center",
                cliponaxis=False,
                marker={"size": 12, "color": colours(comparison)[one.arm.label]},
                showlegend=False,
                hovertemplate="%{x:.4g}, %{y:.3f}<extra></extra>",
            )
        )
    return figure.update_xaxes(title=title).update_yaxes(title=metric_name(comparison.metric))


def _figure(*, height: int) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 20, "t": 20, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="white",
        font={"family": "Inter, system-ui, sans-serif", "size": 13, "color": "#222"},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02},
    )
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, automargin=True)
    return figure.update_yaxes(gridcolor=_GRID, zeroline=False, automargin=True)
