"""Whether an engine or a precision changes what a training learns: every arm of specs/precision/ against itself.

    python -m benchmarks.precision [--figure learning.png] [--metric ap50] [--out precision.txt]

Of the runs that ``ditr run specs/precision/*.yaml`` left in DITR_RUNS: the scores of each arm in each variant, and how
much each variant differs from MinkowskiEngine in float32, by the statistics of ``ditr compare``: over scenes and seeds,
with p corrected for all of them (Holm). The figure has the validation score over the epochs, a thin line a seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from ditr.cli.tables import text_table
from ditr.evaluation.resampling import Metric, Scored
from ditr.evaluation.statistics import difference, holm, spread
from ditr.paths import runs_dir
from ditr.report.answers import interval_text, p_text
from ditr.report.arms import Arm, ArmRun, all_arms

VARIANTS = {"minkowski": "#444444", "float32": "#30638e", "bfloat16": "#0b6e4f", "float16": "#d1495b"}
"""What the names of the specs end with, and a colour; the first is the reference."""
SAYS = {"minkowski": "MinkowskiEngine, float32"} | {name: f"Triton, {name}" for name in list(VARIANTS)[1:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metric", choices=("ap", "ap50", "ap25"), default="ap50")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--out", type=Path, help="a file for what is printed")
    arguments = parser.parse_args()
    arms = {arm.label: arm for arm in all_arms(runs_dir()).found}
    by_arm = {
        name: [arms[f"{name}_{variant}"] for variant in VARIANTS if f"{name}_{variant}" in arms]
        for name in sorted({label.rpartition("_")[0] for label in arms if label.rpartition("_")[2] in VARIANTS})
    }
    if not by_arm:
        parser.error(
            f"no finished run in {runs_dir()} is of specs/precision/; `ditr run specs/precision/*.yaml` makes them"
        )
    text = scores_table(by_arm, metric=arguments.metric) + "\n" + differences_table(by_arm, metric=arguments.metric)
    print(text, end="")
    if arguments.out is not None:
        arguments.out.write_text(text)
    if arguments.figure is not None:
        draw(by_arm, metric=arguments.metric, path=arguments.figure)


ByArm = Mapping[str, Sequence[Arm]]
"""The arm in each variant, the reference first."""


def scores_table(by_arm: ByArm, *, metric: Metric) -> str:
    """A row an arm and variant: mean and standard deviation over the seeds."""
    rows = []
    for arm in (arm for variants in by_arm.values() for arm in variants):
        found = spread(Scored(arm.tables), metric=metric)
        seeds = " ".join(f"{value:.3f}" for value in found.values)
        rows.append((arm.label, found.n, f"{found.mean:.3f} +- {found.sd or 0:.3f}", seeds))
    return text_table(("arm", "seeds", metric.upper(), "each seed"), rows)


def differences_table(by_arm: ByArm, *, metric: Metric) -> str:
    """A row an arm and variant but the first, which it is held against."""
    pairs = [(variants[0], other) for variants in by_arm.values() for other in variants[1:]]
    found = [difference(Scored(one.tables), Scored(other.tables), metric=metric) for one, other in pairs]
    rows = [
        (f"{other.label} - {one.label}", f"{each.value:+.3f}", interval_text(each), p_text(p), each.minimum_detectable)
        for (one, other), each, p in zip(pairs, found, holm([each.p for each in found]), strict=True)
    ]
    return text_table(("difference", metric.upper(), "95 % interval", "p (Holm)", "detectable"), rows)


def draw(by_arm: ByArm, *, metric: Metric, path: Path) -> None:
    """The learning curves, a panel an arm."""
    figure = Figure(figsize=(4.2 * len(by_arm), 3.4), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(by_arm), sharey=True, squeeze=False)[0]
    for panel, (name, variants) in zip(panels, by_arm.items(), strict=True):
        for arm in variants:
            variant = arm.label.rpartition("_")[2]
            curves = [dict(_curve(run, metric=metric, epochs=arm.spec.schedule.epochs)) for run in arm.runs]
            epochs = sorted(curves[0])
            for curve in curves:
                panel.plot(epochs, [curve[epoch] for epoch in epochs], color=VARIANTS[variant], lw=0.6, alpha=0.5)
            means = [fmean(curve[epoch] for curve in curves) for epoch in epochs]
            panel.plot(epochs, means, "o-", color=VARIANTS[variant], lw=2, ms=4, label=SAYS[variant])
        panel.set_title(name, loc="left", fontsize=11)
        panel.set_xlabel("epochs")
        panel.grid(color="#e6e6e6", lw=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"validation {metric.upper()}")
    panels[0].legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _curve(run: ArmRun, *, metric: Metric, epochs: int) -> list[tuple[float, float]]:
    """Epochs done, and the score then."""
    name = f"val/{metric}"
    rows = [(row["step"], row["metrics"][name]) for row in run.folder.logged() if name in row["metrics"]]
    return [(round(epochs * step / rows[-1][0], 3), value) for step, value in rows]


if __name__ == "__main__":
    main()
