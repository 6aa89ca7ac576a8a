"""The pictures in a run's folder: precision and recall, and panels of the frames that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from ditr.evaluation.instance_ap import precision_recall
from ditr.evaluation.instances import MATCH_IOU
from ditr.report.figure_file import save_figure
from ditr.report.frame_pictures import draw_results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ditr.evaluation.evaluate import Evaluation
    from ditr.evaluation.instance_ap import PrecisionRecall

CURVES = {"IoU > 0.50": 0.50, "IoU > 0.25": 0.25}
CURVE_COLOURS = ("#0b6e4f", "#d1495b", "#30638e", "#edae49", "#6f4e7c", "#8d99ae")


def draw_run(folder: Path, *, evaluation: Evaluation, name: str) -> None:
    """Draws ``pr_curve.png`` and one ``panel_<frame>.png`` for each kept frame into ``folder``.

    Panels show the predictions from the score on at which precision and recall at ``MATCH_IOU`` are in best balance.
    ``name`` is the run's, for titles.
    """
    curves = {label: precision_recall(evaluation.table, threshold=threshold) for label, threshold in CURVES.items()}
    pr_curve(curves, path=folder / "pr_curve.png", title=name)
    best_score = precision_recall(evaluation.table, threshold=MATCH_IOU).best_score
    for view in evaluation.views:
        draw_results(view, run=name, best_score=best_score, path=folder / f"panel_{view.frame_id}.png")


def pr_curve(curves: Mapping[str, PrecisionRecall], *, path: Path, title: str) -> None:
    """Draw curves by label, each with its average precision in the legend."""
    figure = Figure(figsize=(6, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for index, (label, curve) in enumerate(curves.items()):
        colour, label = CURVE_COLOURS[index % len(CURVE_COLOURS)], f"{label}   AP {curve.average_precision:.3f}"
        axes.plot(curve.recall, curve.precision, color=colour, lw=2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", frameon=False)
    save_figure(figure, path)
