"""``ditr compare``: arms beside each other, and the two questions answered."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditr.cli.specs import load_specs
from ditr.cli.tables import text_table
from ditr.paths import runs_dir
from ditr.record.metrics import COSTS
from ditr.spec.identity import run_hashes
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.evaluation.resampling import Metric
    from ditr.report.arms import Arms
    from ditr.report.compare import Comparison
    from ditr.report.stratum_contrasts import StratumContrast


class MetricName(StrEnum):
    """What arms are compared by."""

    AP = "ap"
    AP50 = "ap50"
    AP25 = "ap25"


MetricOption = Annotated[MetricName, typer.Option(help="What arms are compared by.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD",
        help="Let runs differ in this field besides their fusion, such as `schedule.epochs`; repeatable, and said.",
    ),
]
WHAT = "Names of runs (`baseline`, or `baseline@1a2b3c` by the start of its hash), or spec files."


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("compare")(compare_arms)


def compare_arms(
    arms: Annotated[list[str], typer.Argument(metavar="ARM", help=WHAT, show_default=False)],
    metric: MetricOption = MetricName.AP50,
    allow: Allow = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the differences, in all and by texture where that is known, as a PNG.")
    ] = None,
    where: Annotated[
        bool, typer.Option("--where", help="Also show where each arm gains: by parts of the truth.")
    ] = False,
) -> None:
    """Compare finished runs: mean and spread over seeds, paired differences with intervals, cost, and what follows.

    Every arm is held against the first 3D-only one, and multi-scale arms against single-scale ones. Runs that differ in
    more than their fusion, or than the 2D features of one fusion, are refused. Differences are over scenes and seeds; p
    is corrected for all of them (Holm).
    """
    from ditr.report.compare import compare
    from ditr.report.stratum_contrasts import by_stratum

    found = find_arms(arms)
    comparison = compare(found, metric=metric.value, allow=allow or ())
    typer.echo(in_text(comparison), nl=False)
    if not where and figure is None:
        return
    parts = by_stratum(found.found, reference=comparison.reference, metric=metric.value)
    if where:
        typer.echo(f"\n{_where(parts, metric=metric.value)}", nl=False)
    if figure is not None:
        from ditr.report.difference_plot import draw_differences

        draw_differences(comparison, parts=[part for part in parts if part.stratum.of == "texture"], path=figure)
        typer.echo(f"\nfigure: {figure}")


def find_arms(wanted: Sequence[str]) -> Arms:
    """The arms of these names and spec files, in that order; all arms with finished runs for none."""
    from ditr.report.arms import all_arms

    arms = all_arms(runs_dir())
    if not wanted:
        return arms
    registry = Registry()
    names: list[str] = []
    for text in wanted:
        if text.endswith(".yaml") or ".yaml::" in text:
            loaded = load_specs([Path(text)], registry=registry, overrides=None)
            for one in loaded:
                hashes = list(run_hashes(one.spec, registry=registry).values())
                names += [found for found in hashes if arms.has(found)] or hashes[:1]
        else:
            names.append(text)
    return arms.called(names)


def in_text(comparison: Comparison) -> str:
    """What the command prints."""
    parts = [_arms(comparison), _contrasts(comparison), _answers(comparison)]
    parts += [f"caveat: {caveat}\n" for caveat in comparison.caveats]
    return "\n".join(part for part in parts if part)


def _arms(comparison: Comparison) -> str:
    from ditr.report.answers import metric_name

    best = comparison.best
    rows = []
    for summary in comparison.arms:
        spreads = [_spread(spread.mean, spread.sd) for spread in summary.spreads.values()]
        label = summary.arm.label
        n = summary.spreads[comparison.metric].n
        rows.append((label + (" *" if label == best else ""), n, *spreads, *summary.costs.values()))
    names = [metric_name(metric) for metric in comparison.arms[0].spreads]
    legend = f"* highest mean {metric_name(comparison.metric)}\n" if best else ""
    return text_table(("arm", "seeds", *names, *COSTS.values()), rows) + legend


def _spread(mean: float, sd: float | None) -> str:
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} +- {sd:.3f}"


def _contrasts(comparison: Comparison) -> str:
    from ditr.report.answers import detectable_text, interval_text, metric_name, p_text

    rows = []
    for contrast in comparison.contrasts:
        found = contrast.difference
        rows.append(
            (
                f"{contrast.label} - {contrast.reference}",
                f"{found.value:+.3f}",
                interval_text(found),
                p_text(contrast.p_holm),
                p_text(contrast.permutation_p),
                detectable_text(found),
            )
        )
    columns = ("difference", metric_name(comparison.metric), "95 % interval", "p (Holm)", "p (scenes)", "detectable")
    return text_table(columns, rows) if rows else ""


def _where(contrasts: Sequence[StratumContrast], *, metric: Metric) -> str:
    from ditr.report.answers import interval_text, metric_name

    rows = []
    for one in contrasts:
        found = one.difference
        part = (one.stratum.of, one.stratum.name, one.stratum.num_instances)
        rows.append((*part, f"{one.reference_mean:.3f}", one.label, f"{found.value:+.3f}", interval_text(found)))
    reference = contrasts[0].reference if contrasts else ""
    columns = ("by", "part", "instances", reference, "arm", f"{metric_name(metric)} gained", "95 % interval")
    return text_table(columns, rows)


def _answers(comparison: Comparison) -> str:
    lines = []
    for answer in comparison.answers:
        lines += [f"{answer.question} {answer.verdict.upper()}", *(f"  {sentence}" for sentence in answer.evidence)]
    return "".join(line + "\n" for line in lines)
