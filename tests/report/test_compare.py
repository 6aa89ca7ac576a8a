"""Arms of run folders beside each other: what is refused, what is said, and what is decided."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import ditr
from ditr.errors import DitrError
from ditr.evaluation.resampling import Scored
from ditr.evaluation.statistics import difference, holm
from ditr.paths import project_dir
from ditr.record.views.results import Results
from ditr.report.answers import sentence, verdict
from ditr.report.comparability import caveats
from ditr.report.compare import compare
from ditr.report.contrast import Contrast
from ditr.report.stratum_contrasts import by_stratum
from tests.reference.finished_runs import (
    CONTROLS,
    Make,
    arms_of,
    compared,
    table,
)


def test_a_clear_gain_answers_both_questions_with_its_evidence(runs: Path, make: Make) -> None:
    make("baseline.yaml", chance=0.3)
    make("bifusion.yaml", chance=0.6)
    make("ablations/inject_only.yaml", chance=0.9)
    make("ablations/control_zero.yaml", chance=0.3)
    found = compared(runs, "baseline", "bifusion", "inject_only", "control_zero")
    first, second = found.answers
    assert (first.verdict, second.verdict) == ("yes", "yes")
    assert "Controls without information against 3D only: control_zero" in first.evidence[-1]
    assert "inject_only is +0.1" in second.evidence[0]
    assert "3 seeds each, 12 scenes" in second.evidence[0]
    assert found.best == "inject_only"
    pairs = [(contrast.label, contrast.reference) for contrast in found.contrasts]
    assert pairs == [
        ("bifusion", "baseline"),
        ("inject_only", "baseline"),
        ("control_zero", "baseline"),
        ("inject_only", "bifusion"),
    ]
    assert all(contrast.p_holm >= contrast.difference.p for contrast in found.contrasts)
    assert found.arms[0].costs == {"params_m": 1.5, "step_ms": 100.0, "peak_mem_mb": None, "infer_ms": None}


def test_a_control_that_gains_as_much_takes_the_yes_back(runs: Path, make: Make) -> None:
    make("baseline.yaml", chance=0.3)
    make("fpn_inject.yaml", chance=0.9)
    make("ablations/control_shuffled.yaml", chance=0.9)
    answer = compared(runs, "baseline", "fpn_inject", "control_shuffled").answers[0]
    assert answer.verdict == "not decided"
    assert "But control_shuffled, whose features tell nothing of their image, gains +0.2" in answer.evidence[-1]


def test_one_seed_decides_nothing_and_has_no_best(runs: Path, make: Make) -> None:
    make("baseline.yaml", chance=0.1, seeds=1)
    make("bifusion.yaml", chance=0.95, seeds=1)
    found = compared(runs, "baseline", "bifusion")
    assert found.answers[0].verdict == "not decided"
    assert "3 seeds are needed to decide" in found.answers[0].evidence[0]
    assert found.best is None


def test_one_scene_leaves_intervals_and_p_unknown() -> None:
    arms = [
        Scored([table(chance, seed=seed).subset(("scene0000_00_0",))] * 3) for seed, chance in enumerate((0.3, 0.9))
    ]
    found = difference(*arms, metric="ap50", resamples=20)
    (p,) = holm([found.p])
    shown = Contrast(label="b", reference="a", difference=found, p_holm=p, permutation_p=1.0)
    said = sentence(shown, metric="ap50")
    assert verdict(shown) == "not decided"
    assert "95 % interval unknown, p unknown after" in said
    assert "3 seeds each, 1 scene)" in said
    assert "nan" not in said


def test_without_a_3d_only_arm_no_pair_is_compared_twice(runs: Path, make: Make) -> None:
    make("fpn_inject.yaml", chance=0.9)
    make("bifusion.yaml", chance=0.3)
    (contrast,) = compared(runs, "fpn_inject", "bifusion").contrasts
    assert (contrast.label, contrast.reference) == ("bifusion", "fpn_inject")


def test_no_difference_is_not_decided_and_says_what_would_have_been_seen(runs: Path, make: Make) -> None:
    make("baseline.yaml", chance=0.5)
    make("bifusion.yaml", chance=0.5)
    (evidence,) = compared(runs, "baseline", "bifusion").answers[0].evidence
    assert "would mostly be missed with this data" in evidence


def test_a_loss_is_a_no(runs: Path, make: Make) -> None:
    make("baseline.yaml", chance=0.9)
    make("bifusion.yaml", chance=0.2)
    assert compared(runs, "baseline", "bifusion").answers[0].verdict == "no"


def test_what_is_not_there_is_named(runs: Path, make: Make) -> None:
    make("bifusion.yaml")
    make("fpn_inject.yaml")
    first, second = compared(runs, "bifusion", "fpn_inject").answers
    assert first.evidence == ("It needs a 3D-only arm and one with fusion.",)
    assert "without the gate" in second.evidence[0]


def test_parts_show_where_the_gain_is(runs: Path, make: Make) -> None:
    make("baseline.yaml", chance=0.2)
    make("bifusion.yaml", chance=0.9)
    baseline, bifusion = arms_of(runs, "baseline", "bifusion").found
    found = {one.stratum.name: one for one in by_stratum([bifusion], reference=baseline, metric="ap50", resamples=50)}
    assert found["differs in texture only"].difference.value > 0.5
    assert found["differs otherwise"].difference.value == 0
    assert found["differs otherwise"].reference_mean == pytest.approx(1.0)


def test_reports_and_views_need_no_torch() -> None:
    import subprocess

    pictures = ("frame_pictures", "prediction_files", "scene_files", "pages.frame", "pages.scene")
    names = ("compare", "stratum_contrasts", "page", *pictures)
    modules = ", ".join(f"ditr.report.{name}" for name in names)
    code = f"import {modules}, ditr.cli.compare, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=project_dir())


def test_the_committed_study_says_what_the_readme_says() -> None:
    study = project_dir() / "docs" / "study" / "runs"
    names = ("baseline", "bifusion", "inject_only", "fpn_inject", "control_zero")
    found = compare(arms_of(study, *names), metric="ap50", resamples=100)
    assert [answer.verdict for answer in found.answers] == ["yes", "yes"]
    readme = (project_dir() / "README.md").read_text()
    for summary in found.arms:
        spread = summary.spreads["ap50"]
        assert f"{spread.mean:.3f} ± {spread.sd:.3f}" in readme
        results = [json.loads(run.folder.result.read_text())["ap50"] for run in summary.arm.runs]
        assert spread.values == pytest.approx(results, abs=1e-9), "the match tables give the runs' own numbers"


def test_the_commands_of_the_readme_compare_the_committed_study() -> None:
    """All are alike but for fusion and control; one comparison allows a longer schedule."""
    study = arms_of(
        project_dir() / "docs" / "study" / "runs", "baseline", "bifusion", "inject_only", "fpn_inject", *CONTROLS
    )
    assert caveats(study.found, allow=()) == ()
    names = ("baseline_long", "bifusion", "inject_only", "fpn_inject", "control_mean")
    (caveat,) = caveats(arms_of(project_dir() / "docs" / "study" / "runs", *names).found, allow=("schedule.epochs",))
    assert "schedule.epochs" in caveat


def test_a_notebook_shows_the_comparison_and_gives_its_numbers(runs: Path, make: Make) -> None:
    make("baseline.yaml", chance=0.3)
    make("bifusion.yaml", "name=ab", chance=0.9)
    view = ditr.compare("baseline", "ab", runs=runs)
    page = view._repr_html_()
    assert page.count("<table>") == 2
    assert "<td><b>ab</b></td>" in page
    assert repr(view).startswith("ComparisonView(baseline, ab: Does fusing 2D features beat 3D only? yes;")
    assert "Does fusing 2D features beat 3D only? Yes." in page
    frame = view.df()
    assert frame.groupby("arm")["seed"].count().to_dict() == {"ab": 3, "baseline": 3}
    assert frame["ap50"].tolist() == pytest.approx(
        [value for one in view.comparison.arms for value in one.spreads["ap50"].values]
    )


def test_a_notebook_shows_results_as_a_table_and_a_data_frame(runs: Path, make: Make) -> None:
    make("baseline.yaml")
    Results(runs).rebuild()
    found = ditr.results(runs)
    assert found.df("select name, seed from results order by seed").values.tolist() == [
        ["baseline", 0],
        ["baseline", 1],
        ["baseline", 2],
    ]
    assert found._repr_html_().count("<tr>") == 4
    assert repr(found) == f"ResultsView({str(runs)!r})"
    with pytest.raises(DitrError, match="refused"):
        found.df("drop table results")
