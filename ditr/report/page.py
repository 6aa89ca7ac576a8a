"""The report: one page that holds everything it shows, and asks nobody for anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ditr.paths import portable_text
from ditr.record.metrics import COSTS
from ditr.record.state import now
from ditr.report.answers import metric_name
from ditr.report.arms import Arm
from ditr.report.compare import Comparison
from ditr.report.gallery import gallery
from ditr.report.notebook import arms_table, contrasts_table
from ditr.report.page_style import STYLE
from ditr.report.plots import cost_figure, difference_figure, learning_figure, parts_figure, recall_figure
from ditr.report.stratum_contrasts import StratumContrast
from ditr.spec.diff import diff
from ditr.spec.dump import to_yaml

_PARTS = {
    "texture": "Texture: things that differ from what they touch in fine texture only, and the others.",
    "size": "Size: diagonal of the box of an instance's points, in thirds.",
    "distance": "Distance to the camera, in thirds.",
    "points": "Points of an instance, in thirds.",
    "frequency": "How frequent the class is in ScanNet200.",
    "projection": "Whether all points of an instance fall on the image.",
}
_FIT = (
    "addEventListener('load', () =>"
    " document.querySelectorAll('.js-plotly-plot').forEach(plot => Plotly.Plots.resize(plot)))"
)
"""Figures are drawn while the page is still being laid out; this gives them the width that is left for them."""


def report_page(comparison: Comparison, *, parts: Sequence[StratumContrast]) -> str:
    """The whole page as HTML."""
    sections = (
        ("The questions", _answers(comparison)),
        ("The arms", _table_of_arms(comparison)),
        ("Differences", _differences(comparison)),
        ("Where it helps", _where(comparison, parts)),
        ("Training", _training(comparison)),
        ("Precision and recall", _recall(comparison)),
        ("Frames", _frames(comparison)),
        ("Cost and benefit", _costs(comparison)),
        ("Specs", _specs(comparison)),
        ("Provenance", _provenance(comparison)),
    )
    body = "".join(f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>{html}</section>' for name, html in sections)
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name, _ in sections)
    title = " · ".join(one.arm.label for one in comparison.arms)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>ditr: {escape(title)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f'<body><header><p class="kind">ditr report, {escape(now())}</p><h1>{escape(title)}</h1>'
        f"<nav>{links}</nav></header><main>{body}</main><script>{_FIT}</script></body></html>"
    )


def _answers(comparison: Comparison) -> str:
    blocks = []
    for one in comparison.answers:
        evidence = "".join(f"<li>{escape(sentence)}</li>" for sentence in one.evidence)
        verdict = f'<span class="verdict {one.verdict.replace(" ", "-")}">{escape(one.verdict)}</span>'
        blocks.append(f'<div class="answer"><h3>{escape(one.question)} {verdict}</h3><ul>{evidence}</ul></div>')
    caveats = "".join(f"<li>{escape(caveat)}</li>" for caveat in comparison.caveats)
    return "".join(blocks) + (f'<div class="caveats"><h3>Caveats</h3><ul>{caveats}</ul></div>' if caveats else "")


def _table_of_arms(comparison: Comparison) -> str:
    frames = len(comparison.arms[0].arm.tables[0])
    note = "The highest mean is bold." if comparison.best else "Nothing is bold: an arm has fewer than three seeds."
    text = f"Mean ± standard deviation over seeds, on {frames} frames. {note} Costs are means over seeds."
    return f'<p class="caption">{text}</p><div class="scroll">{arms_table(comparison)}</div>'


def _differences(comparison: Comparison) -> str:
    if not comparison.contrasts:
        return "<p>There is one arm, so nothing to compare it with.</p>"
    text = (
        "Points are differences between means over seeds, lines 95 % intervals over scenes and seeds. p is corrected"
        " for all differences (Holm). Arms with one seed have intervals over scenes only."
    )
    table = f'<div class="scroll">{contrasts_table(comparison)}</div>'
    return f'<p class="caption">{text}</p>{_plot(difference_figure(comparison))}{table}'


def _where(comparison: Comparison, parts: Sequence[StratumContrast]) -> str:
    kinds = [of for of in _PARTS if len({part.stratum.name for part in parts if part.stratum.of == of}) > 1]
    if not kinds:
        return "<p>There are not enough instances to look at parts of them.</p>"
    text = (
        "AP when only these ground-truth instances are looked for; all others are ignored as too-small ones are. Lines"
        " are 95 % intervals, not corrected for the many parts."
    )
    plots = "".join(f"<h3>{escape(_PARTS[of])}</h3>{_plot(parts_figure(comparison, parts, of=of))}" for of in kinds)
    return f'<p class="caption">{text}</p>{plots}'


def _training(comparison: Comparison) -> str:
    metric = metric_name(comparison.metric)
    score = learning_figure(comparison, name=f"val/{comparison.metric}", title=f"validation {metric}")
    loss = learning_figure(comparison, name="epoch/loss", title="training loss, mean of an epoch")
    return f'<p class="caption">Every line is a seed.</p>{_plot(score)}{_plot(loss)}'


def _recall(comparison: Comparison) -> str:
    text = "Mean over seeds of the precision at each recall, at IoU above 0.5."
    return f'<p class="caption">{text}</p>{_plot(recall_figure(comparison, threshold=0.5))}'


def _frames(comparison: Comparison) -> str:
    frames = gallery([one.arm for one in comparison.arms])
    if not frames:
        return "<p>The runs kept no frames in common: tracking.panels says how many each keeps.</p>"
    text = (
        "Of each arm's first seed. Green: right about its instance (IoU above 0.5). Red: missed or wrong. Yellow: found"
        " where nothing is. Predictions from the score on at which precision and recall are in best balance."
    )
    blocks = []
    for frame_id, pictures in frames.items():
        figures = "".join(
            f'<figure><img loading="lazy" alt="{escape(one.caption)}" src="{one.data_uri}">'
            f"<figcaption>{escape(one.caption)}</figcaption></figure>"
            for one in pictures
        )
        blocks.append(f'<h3>{escape(frame_id)}</h3><div class="gallery">{figures}</div>')
    return f'<p class="caption">{text}</p>{"".join(blocks)}'


def _costs(comparison: Comparison) -> str:
    found = {title: cost_figure(comparison, cost=cost, title=title) for cost, title in COSTS.items()}
    plots = "".join(f"<div>{_plot(figure)}</div>" for figure in found.values() if figure is not None)
    lacking = [title for title, figure in found.items() if figure is None]
    said = f"<p>Not known of every arm: {escape(', '.join(lacking))}.</p>" if lacking else ""
    text = "Lines are one standard deviation over seeds. Times are those of the runs, beside whatever ran with them."
    return f'<p class="caption">{text}</p><div class="columns">{plots}</div>{said}'


def _specs(comparison: Comparison) -> str:
    first = comparison.reference
    blocks = []
    for one in comparison.arms:
        arm = one.arm
        differing = [found for found in diff(first.spec, arm.spec) if found.path not in ("name", "description", "tags")]
        rows = "".join(_row(found.path, _yaml(found.first), _yaml(found.second)) for found in differing)
        head = f"<tr><th>field</th><th>{escape(first.label)}</th><th>{escape(arm.label)}</th></tr>"
        differs = f'<div class="scroll"><table>{head}{rows}</table></div>' if rows else ""
        summary = f"<summary>whole spec, {arm.spec_hash[:10]}</summary>"
        whole = f"<details>{summary}<pre>{escape(to_yaml(arm.spec))}</pre></details>"
        blocks.append(f"<h3>{escape(arm.label)}</h3>{differs}{whole}")
    return "".join(blocks)


def _provenance(comparison: Comparison) -> str:
    blocks = []
    for one in comparison.arms:
        for run in one.arm.runs:
            facts = portable_text(json.dumps(run.provenance, indent=2))  # earlier versions noted whole paths
            name = f"{one.arm.label}, seed {run.seed}: {_headline(one.arm, run.provenance, run.result)}"
            blocks.append(f"<details><summary>{escape(name)}</summary><pre>{escape(facts)}</pre></details>")
    return "".join(blocks)


def _headline(arm: Arm, facts: dict[str, Any], result: dict[str, Any]) -> str:
    code = str(facts.get("code") or "not noted")[:12]
    return f"code {code}, data {facts['dataset']['digest'][:12]}, {result['device']}, spec {arm.spec_hash[:10]}"


def _plot(figure: go.Figure) -> str:
    config = {"displayModeBar": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _yaml(value: object) -> str:
    return "null" if value is None else str(value)
