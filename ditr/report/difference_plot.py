"""The main figure of a comparison: how much each arm gains on 3D only, in all and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ditr.evaluation.statistics import Difference
from ditr.report.answers import metric_name
from ditr.report.compare import ArmSummary, Comparison
from ditr.report.figure_file import save_figure
from ditr.report.stratum_contrasts import StratumContrast

_REAL, _CONTROL = "#0b6e4f", "#8d99ae"
_ROW_INCHES = 0.42


def draw_differences(comparison: Comparison, *, parts: Sequence[StratumContrast], path: Path) -> None:
    """Writes the PNG, in folders that are made: one column for all instances, one for each part of the ground truth.

    Parameters
    ----------
    parts: of one kind, such as those by texture.
    """
    arms = [summary for summary in comparison.arms if summary.arm.label != comparison.reference.label]
    names = list(dict.fromkeys(part.stratum.name for part in parts))
    figure = Figure(figsize=(4 + 3.1 * len(names), 1.6 + _ROW_INCHES * len(arms)), dpi=130, layout="constrained")
    columns = figure.subplots(1, 1 + len(names), sharey=True, squeeze=False)[0]
    overall = {c.label: c.difference for c in comparison.contrasts if c.reference == comparison.reference.label}
    mean = comparison.summary(comparison.reference.label).spreads[comparison.metric].mean
    _column(columns[0], arms, overall, title=f"all instances\n{comparison.reference.label} {mean:.3f}")
    for axes, name in zip(columns[1:], names, strict=True):
        mine = [part for part in parts if part.stratum.name == name]
        title = f"{name} ({mine[0].stratum.num_instances})\n{comparison.reference.label} {mine[0].reference_mean:.3f}"
        _column(axes, arms, {part.label: part.difference for part in mine}, title=title)
    figure.supxlabel(
        f"{metric_name(comparison.metric)} gained on {comparison.reference.label}, with 95 % intervals over scenes and"
        " seeds; controls in grey",
        fontsize=10,
    )
    save_figure(figure, path)


def _column(axes: Axes, arms: Sequence[ArmSummary], found: Mapping[str, Difference], *, title: str) -> None:
    for row, summary in enumerate(reversed(arms)):
        one = found[summary.arm.label]
        colour = _CONTROL if summary.role == "control" else _REAL
        axes.plot([one.low, one.high], [row, row], color=colour, lw=2.5, solid_capstyle="round")
        axes.plot([one.value], [row], "o", color=colour, ms=7)
        axes.annotate(f"{one.value:+.3f}", (one.high, row), xytext=(6, -3), textcoords="offset points", fontsize=9)
    axes.axvline(0, color="#333333", lw=1)
    axes.set_yticks(range(len(arms)), [summary.arm.label for summary in reversed(arms)])
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(axis="x", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.22)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
