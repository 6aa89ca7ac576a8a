"""Arms of run folders beside each other: what is refused, what is said, and what is decided."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ditr
from ditr.errors import Code, DitrError
from ditr.evaluation.instance_facts import save_instances
from ditr.evaluation.match_table import FrameMatches, MatchTable
from ditr.evaluation.resampling import Scored
from ditr.evaluation.statistics import difference, holm
from ditr.files import write_json
from ditr.paths import project_dir
from ditr.record.folder import Record
from ditr.record.provenance import session_facts
from ditr.record.state import RecordState
from ditr.record.views.results import Results
from ditr.report.answers import sentence, verdict
from ditr.report.arms import Arms, all_arms
from ditr.report.comparability import caveats
from ditr.report.compare import Comparison, compare
from ditr.report.contrast import Contrast
from ditr.report.stratum_contrasts import by_stratum
from ditr.spec.dump import to_yaml
from ditr.spec.identity import run_key, spec_hash, variant
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

INSTANCES = 10
SCENES = 12
Make = Callable[..., None]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def make(runs: Path) -> Make:
    """Writes the finished runs of a committed spec, whose models find a share ``chance`` of the instances."""
    registry = Registry(project_dir() / "registry")

    def write(file: str, *sets: str, chance: float = 0.5, seeds: int = 3, **facts: Any) -> None:
        spec = load_spec(project_dir() / "specs" / file, registry=registry, overrides=sets).spec
        digest = spec_hash(spec, registry=registry)
        for seed in range(seeds):
            key = run_key(digest, seed)
            folder = Record(runs / f"{spec.name}-s{seed}-{key}")
            folder.path.mkdir(parents=True)
            state = RecordState(
                run_key=key,
                spec_hash=digest,
                name=spec.name,
                variant=variant(spec),
                seed=seed,
                state="finished",
                started_at=f"2026-01-01T00:{len(list(runs.iterdir())):02d}:00+00:00",
            )
            write_json(folder.path / "state.json", asdict(state))
            folder.spec.write_text(to_yaml(spec))
            read = {"features": FEATURES} if spec.fusion.parts else {}
            write_json(folder.provenance, PROVENANCE | read | facts)
            write_json(folder.result, RESULT)
            table(chance, seed=hash_of(file, seed)).save(folder.matches)
            save_instances(folder.instances, ROWS)

    return write


DATASET = {"digest": "da7a", "intrinsics": "default", "excluded_frames": []}
FEATURES: dict[str, Any] = {
    "weights_digest": "2d",
    "entry": {"kind": "vit", "description": "a source", "mean": [0.5, 0.5, 0.5]},
}
PROVENANCE: dict[str, Any] = {
    "code": "c0de",
    "git": {"commit": "a", "dirty": False},
    "dataset": DATASET,
    "features": None,
    "device": "cpu",
    "threads": 1,
    "earlier_sessions": [],
    "start_weights": {"sha256": "e16"},
    "packages": {"torch": "2.13.0", "numpy": "2.4"},
}
RESULT = {"split": "val", "n_frames": SCENES, "device": "cpu", "params_m": 1.5, "step_ms": 100.0}
ROWS = [
    {
        "frame_id": f"scene{scene:04d}_00_0",
        "instance": instance,
        "n_points": 200,
        "size_m": 1.0,
        "distance_m": 2.0,
        "valid_ratio": 1.0,
        "class_name": "chair",
        "frequency": "head",
        "texture_only": instance < INSTANCES // 2,
        "best_iou": 0.0,
    }
    for scene in range(SCENES)
    for instance in range(INSTANCES)
]


def hash_of(file: str, seed: int) -> int:
    return sum(file.encode()) * 100 + seed


def table(chance: float, *, seed: int) -> MatchTable:
    """The later half of each frame's instances is always found, the first half with the chance."""
    rng = np.random.default_rng(seed)
    frames = []
    for scene in range(SCENES):
        found = np.flatnonzero((rng.random(INSTANCES) < chance) | (np.arange(INSTANCES) >= INSTANCES // 2))
        points = np.full(len(found), 200)
        frames.append(
            FrameMatches(
                frame_id=f"scene{scene:04d}_00_0",
                gt_sizes=np.full(INSTANCES, 200),
                scores=rng.random(len(found)),
                sizes=points,
                void=np.zeros_like(points),
                pair_gt=found,
                pair_pred=np.arange(len(found)),
                pair_points=points,
            )
        )
    return MatchTable(frames, min_points=100)


def arms_of(runs: Path, *names: str) -> Arms:
    return all_arms(runs).called(names)


def compared(runs: Path, *names: str, allow: tuple[str, ...] = ()) -> Comparison:
    return compare(arms_of(runs, *names), metric="ap50", allow=allow, resamples=100)


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


REFUSED: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "schedule": (("schedule.epochs=9",), {}, "schedule.epochs: 4 in baseline; 9 in bifusion"),
    "augmentation": (("augmentation.flip_probability=0.25",), {}, "augmentation.flip_probability: 0.5 in baseline"),
    "protocol": (("evaluation.top_k=50",), {}, "evaluation.top_k: 100 in baseline; 50 in bifusion"),
    "data": ((), {"dataset": DATASET | {"digest": "0ther"}}, "dataset_digest: da7a in baseline; 0ther in bifusion"),
    "camera": (
        (),
        {"dataset": DATASET | {"intrinsics": "other"}},
        "intrinsics: default in baseline; other in bifusion",
    ),
    "left out": (
        (),
        {"dataset": DATASET | {"excluded_frames": ["scene0000_00_9"]}},
        "excluded_frames: 0 in baseline; 1 (",
    ),
    "device": ((), {"device": "NVIDIA H100"}, "device: cpu in baseline; NVIDIA H100 in bifusion"),
    "weights": ((), {"start_weights": None}, "start_weights: e16 in baseline; none in bifusion"),
    "code": ((), {"code": "0ther"}, "code: c0de in baseline; 0ther in bifusion"),
    "packages": ((), {"packages": {"torch": "2.12.0"}}, "torch 2.12.0, MinkowskiEngine -"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_runs_that_differ_in_more_than_fusion_are_refused_by_name(runs: Path, make: Make, case: str) -> None:
    sets, facts, message = REFUSED[case]
    make("baseline.yaml")
    make("bifusion.yaml", *sets, **facts)
    with pytest.raises(DitrError) as refused:
        compared(runs, "baseline", "bifusion")
    assert refused.value.code is Code.RUN
    assert message in str(refused.value)
    field = refused.value.fix.split("--allow ")[1].split()[0]
    (caveat,) = compared(runs, "baseline", "bifusion", allow=(field,)).caveats
    assert caveat.startswith(f"Not alike, and allowed to be: {field}: ")


def test_a_whole_part_of_the_spec_can_be_allowed_and_nothing_idly(runs: Path, make: Make) -> None:
    make("baseline.yaml")
    make("bifusion.yaml", "schedule.epochs=9", "schedule.validate_every=3")
    assert len(compared(runs, "baseline", "bifusion", allow=("schedule",)).caveats) == 2
    with pytest.raises(DitrError, match=r"--allow code: .* do not differ in it, or may .*: schedule\.epochs, sched"):
        compared(runs, "baseline", "bifusion", allow=("schedule", "code"))


OTHER_SOURCE = "features.source=dinov2_vits14_reg4"


def test_a_question_about_fusion_refuses_other_features(runs: Path, make: Make) -> None:
    make("baseline.yaml")
    make("bifusion.yaml", chance=0.3)
    make("ablations/inject_only.yaml", OTHER_SOURCE, chance=0.9)
    with pytest.raises(DitrError, match=r"features\.source: vit_mini14_reg4 in bifusion; dinov2_vits14_reg4 in inj"):
        compared(runs, "baseline", "bifusion", "inject_only")
    for allowed in ("features", "features.source"):
        found = compared(runs, "baseline", "bifusion", "inject_only", allow=(allowed,))
        assert found.answers[1].verdict == "yes"
        (caveat,) = found.caveats
        assert caveat.startswith("Not alike, and allowed to be: features.source: vit_mini14_reg4 in bifusion;")


@pytest.mark.parametrize("order", [("bifusion", "inject_only"), ("inject_only", "bifusion")])
def test_how_points_read_features_is_a_difference_in_features_too(
    runs: Path, make: Make, order: tuple[str, str]
) -> None:
    make("bifusion.yaml", "features.sampling=nearest")
    make("ablations/inject_only.yaml")
    with pytest.raises(DitrError, match=r"--allow features\.sampling$"):
        compared(runs, *order)


def test_a_question_about_features_is_asked_of_one_fusion(runs: Path, make: Make) -> None:
    make("baseline.yaml", OTHER_SOURCE)
    make("fpn_inject.yaml")
    make("fpn_inject.yaml", "name=other", OTHER_SOURCE, features={**FEATURES, "weights_digest": "0ther"})
    assert compared(runs, "baseline", "fpn_inject", "other").caveats == ()
    with pytest.raises(DitrError, match="may anyway; what needs to be allowed: nothing"):
        compared(runs, "fpn_inject", "other", allow=("features",))


CONTROLS = ("control_zero", "control_shuffled", "control_mean", "control_random_weights")


def test_controls_differ_in_what_makes_them_controls(runs: Path, make: Make) -> None:
    own = "features.weights={kind: file, path: own.pth}"
    make("bifusion.yaml", own)
    make("fpn_inject.yaml", own)
    for control in CONTROLS[:3]:
        make(f"ablations/{control}.yaml", own)
    make("ablations/control_random_weights.yaml", features={**FEATURES, "weights_digest": "random"})
    assert compared(runs, "bifusion", "fpn_inject", *CONTROLS).caveats == ()
    assert compared(runs, "bifusion", *CONTROLS).caveats == (), "its fusion need not be that of an arm beside it"


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_of_another_source_controls_nothing_here(runs: Path, make: Make, control: str) -> None:
    make("fpn_inject.yaml")
    make(f"ablations/{control}.yaml", OTHER_SOURCE)
    with pytest.raises(DitrError, match=r"--allow features\.source$"):
        compared(runs, "fpn_inject", control)
    make("fpn_inject.yaml", "name=other", OTHER_SOURCE)
    assert compared(runs, "fpn_inject", "other", control).caveats == ()


UNLIKE_FEATURES: dict[str, Any] = {
    "weights": (FEATURES | {"weights_digest": "0ther"}, "features.digest: 2d in bifusion; 0ther in inject_only"),
    "maps": ({"maps_digest": "0ther", "entry": FEATURES["entry"]}, "features.digest: 2d in bifusion; 0ther in inj"),
    "nothing noted": ({"entry": FEATURES["entry"]}, "features.digest: 2d in bifusion; not noted by inject_only-s0"),
    "entry": (FEATURES | {"entry": {"kind": "vit", "mean": [0, 0, 0]}}, "features.entry: "),
}


@pytest.mark.parametrize("case", UNLIKE_FEATURES)
def test_arms_that_name_one_source_and_read_another_are_refused(runs: Path, make: Make, case: str) -> None:
    features, message = UNLIKE_FEATURES[case]
    make("baseline.yaml")
    make("bifusion.yaml")
    make("ablations/inject_only.yaml", features=features)
    with pytest.raises(DitrError) as refused:
        compared(runs, "baseline", "bifusion", "inject_only")
    assert message in str(refused.value)
    assert len(compared(runs, "baseline", "bifusion", "inject_only", allow=("features",)).caveats) == 1


def test_the_prose_of_an_entry_is_no_difference(runs: Path, make: Make) -> None:
    make("bifusion.yaml")
    make("ablations/inject_only.yaml", features=FEATURES | {"entry": {**FEATURES["entry"], "description": "reworded"}})
    assert compared(runs, "bifusion", "inject_only").caveats == ()


BEFORE: dict[str, tuple[dict[str, Any], str]] = {
    "code": ({"code": "01d"}, "code: c0de in baseline; 01d, then c0de within bifusion-s0"),
    "code outside git": ({"git": None, "code": "01d"}, "code: c0de in baseline; 01d, then c0de within bifusion-s0"),
    "packages": ({"packages": {"torch": "2.12.0"}}, "packages: torch 2.13.0"),
    "device": ({"device": "NVIDIA H100"}, "device: cpu in baseline; NVIDIA H100, then cpu within bifusion-s0"),
    "code not noted": ({"git": {"commit": "b", "dirty": False}, "code": None}, "then c0de within bifusion-s0"),
}


@pytest.mark.parametrize("case", BEFORE)
def test_what_earlier_sessions_of_a_training_had_counts(runs: Path, make: Make, case: str) -> None:
    before, message = BEFORE[case]
    make("baseline.yaml")
    make("bifusion.yaml", earlier_sessions=[session_facts(PROVENANCE) | before])
    with pytest.raises(DitrError) as refused:
        compared(runs, "baseline", "bifusion")
    assert message in str(refused.value)


def test_trainings_that_mix_the_same_code_are_not_alike(runs: Path, make: Make) -> None:
    """One may have changed it in its first epoch, the other in its last."""
    for arm in ("baseline.yaml", "bifusion.yaml"):
        make(arm, seeds=1, earlier_sessions=[session_facts(PROVENANCE) | {"code": "01d"}])
    with pytest.raises(DitrError, match="code: 01d, then c0de within baseline"):
        compared(runs, "baseline", "bifusion")


def test_sessions_of_versions_that_noted_git_alone_count_by_it(runs: Path, make: Make) -> None:
    make("baseline.yaml")
    make("bifusion.yaml", earlier_sessions=[{"git": PROVENANCE["git"], "device": "cpu", "threads": 1}])
    assert compared(runs, "baseline", "bifusion").caveats == ()


def test_code_that_was_not_noted_is_like_no_other(runs: Path, make: Make) -> None:
    make("baseline.yaml", code=None)
    make("bifusion.yaml", code=None)
    with pytest.raises(DitrError, match="code: not noted by"):
        compared(runs, "baseline", "bifusion")


def test_data_of_which_a_version_noted_less_is_like_no_other(runs: Path, make: Make) -> None:
    make("baseline.yaml", seeds=1)
    make("bifusion.yaml", seeds=1, dataset={"digest": "da7a"})
    with pytest.raises(DitrError, match=r"--allow intrinsics --allow excluded_frames$"):
        compared(runs, "baseline", "bifusion")


def test_missing_seeds_are_said(runs: Path, make: Make) -> None:
    make("baseline.yaml", "seeds=[0, 1, 2, 3]")
    make("bifusion.yaml", "seeds=[0, 1, 2]")
    assert compared(runs, "baseline", "bifusion").caveats == ("baseline: 3 of 4 seeds are finished.",)


def test_two_experiments_of_one_name_are_told_apart(runs: Path, make: Make) -> None:
    make("baseline.yaml")
    make("baseline.yaml", "schedule.epochs=9")
    labels = [arm.label for arm in all_arms(runs).found]
    with pytest.raises(DitrError, match="2 different experiments are called 'baseline'") as ambiguous:
        arms_of(runs, "baseline")
    assert all(label in ambiguous.value.fix for label in labels)
    (chosen,) = arms_of(runs, labels[1]).found
    assert chosen.spec.schedule.epochs == 9


def test_unknown_names_and_names_given_twice_are_refused(runs: Path, make: Make) -> None:
    with pytest.raises(DitrError, match="no finished run yet"):
        arms_of(runs, "baseline")
    make("baseline.yaml")
    with pytest.raises(DitrError, match="called 'baselin'; did you mean baseline"):
        arms_of(runs, "baselin")
    with pytest.raises(DitrError, match="named before"):
        arms_of(runs, "baseline", "baseline")


def test_a_run_that_lost_a_file_is_named(runs: Path, make: Make) -> None:
    make("baseline.yaml", seeds=2)
    make("bifusion.yaml", seeds=2)
    lost = next(runs.glob("baseline-s1-*/matches.parquet"))
    lost.unlink()
    found = compare(all_arms(runs), metric="ap50", resamples=50)
    assert [one.arm.seeds for one in found.arms] == [(0,), (0, 1)]
    (caveat,) = [said for said in found.caveats if "left out" in said]
    assert caveat == f"{lost.parent.name} is left out: unreadable matches.parquet: a finished run lacks it."


ODD = ("{", "[]", "null", '{"run_key": 1}', "")


@pytest.mark.parametrize("file", ["state.json", "result.json", "provenance.json", "spec.resolved.yaml"])
@pytest.mark.parametrize("content", ODD)
def test_a_damaged_record_is_left_out_and_said(runs: Path, make: Make, file: str, content: str) -> None:
    make("baseline.yaml", seeds=2)
    next(runs.glob(f"baseline-s1-*/{file}")).write_text(content)
    found = compare(all_arms(runs), metric="ap50", resamples=50)
    assert [one.arm.seeds for one in found.arms] == [(0,)]
    assert any("baseline-s1-" in said and "is left out: " in said for said in found.caveats)
    with pytest.raises(DitrError, match=r"called 'bifusion'; there are baseline\n    baseline-s1-.* is left out: "):
        arms_of(runs, "bifusion")


def test_a_copied_run_is_no_further_seed(runs: Path, make: Make) -> None:
    make("baseline.yaml", seeds=2)
    make("bifusion.yaml", seeds=2)
    before = compare(all_arms(runs), metric="ap50", resamples=50)
    copied = next(runs.glob("baseline-s1-*"))
    shutil.copytree(copied, runs / f"copy-{copied.name}")
    found = compare(all_arms(runs), metric="ap50", resamples=50)
    assert [one.spreads for one in found.arms] == [one.spreads for one in before.arms]
    assert f"copy-{copied.name} is left out: it is the same run as {copied.name}." in found.caveats


def test_nothing_to_compare_is_one_message(runs: Path) -> None:
    with pytest.raises(DitrError, match="no finished run yet"):
        ditr.compare(runs=runs)


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

    names = ("compare", "stratum_contrasts", "page", "frame_pictures", "viewer")
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
