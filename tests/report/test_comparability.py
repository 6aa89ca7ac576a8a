"""What runs may differ in, to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ditr.errors import Code, DitrError
from ditr.evaluation.looks import looks
from ditr.record.folder import Record
from ditr.record.provenance import session_facts
from tests.reference.finished_runs import CONTROLS, DATASET, FEATURES, PROVENANCE, Make, compared, finish_anew

PACKAGES = PROVENANCE["packages"]
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
    "packages": ((), {"packages": PACKAGES | {"torch": "2.12.0"}}, "torch 2.12.0, numpy 2.4"),
    "engine": (
        ("execution.engine=triton",),
        {},
        "execution.engine: minkowski in baseline; triton in bifusion",
    ),
    "version of the engine": (
        (),
        {"packages": PACKAGES | {"MinkowskiEngine": "0.6"}},
        "packages.engine: MinkowskiEngine 0.5.4 in baseline; MinkowskiEngine 0.6 in bifusion",
    ),
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


def test_runs_of_one_arm_that_differ_are_told_apart(runs: Path, make: Make) -> None:
    make("baseline.yaml", seeds=2)
    make("baseline.yaml", seeds=1, first=2, code="0ther")
    make("bifusion.yaml")
    said = r"code: c0de in baseline \(seeds 0, 1\), bifusion; 0ther in baseline \(seed 2\)"
    with pytest.raises(DitrError, match=said):
        compared(runs, "baseline", "bifusion")


def test_a_whole_part_of_the_spec_can_be_allowed_and_nothing_idly(runs: Path, make: Make) -> None:
    make("baseline.yaml")
    make("bifusion.yaml", "schedule.epochs=9", "schedule.validate_every=3")
    assert len(compared(runs, "baseline", "bifusion", allow=("schedule",)).caveats) == 2
    with pytest.raises(DitrError, match=r"--allow code: .* do not differ in it, or may .*: schedule\.epochs, sched"):
        compared(runs, "baseline", "bifusion", allow=("schedule", "code"))


OTHER_SOURCE = "features.source=dinov2_vits14_reg4"


def test_runs_in_half_precision_are_compared_when_that_is_said_to_be_meant(runs: Path, make: Make) -> None:
    make("baseline.yaml", "execution.engine=triton")
    make("bifusion.yaml", "execution.precision=bfloat16", "execution.device=cuda", "execution.workers=3")
    with pytest.raises(DitrError, match=r"execution\.precision: float32 in baseline; bfloat16 in bifusion") as refused:
        compared(runs, "baseline", "bifusion")
    assert refused.value.fix.endswith(": --allow execution.precision"), "a device of the same name is no difference"
    (caveat,) = compared(runs, "baseline", "bifusion", allow=("execution.precision",)).caveats
    assert caveat.startswith("Not alike, and allowed to be: execution.precision: ")
    make("fpn_inject.yaml", "execution.engine=minkowski")
    allow = ("execution.precision", "execution.engine")
    assert len(compared(runs, "baseline", "bifusion", "fpn_inject", allow=allow).caveats) == 2, "of other packages"


def test_runs_of_versions_without_the_field_ran_on_minkowski_in_float32(runs: Path, make: Make) -> None:
    make("baseline.yaml", seeds=1)
    make("bifusion.yaml", seeds=1)
    make("fpn_inject.yaml", "execution.engine=triton", seeds=1)
    (old,) = runs.glob("bifusion-*/spec.resolved.yaml")
    text = old.read_text()
    old.write_text(text.replace("engine: minkowski, ", "").replace(", precision: float32", ""))
    assert old.read_text() != text
    finish_anew(Record(old.parent))
    assert "engine" not in old.read_text()
    assert compared(runs, "baseline", "bifusion").caveats == ()
    with pytest.raises(DitrError, match=r"execution\.engine: minkowski in bifusion; triton in fpn_inject"):
        compared(runs, "bifusion", "fpn_inject")


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
    "code": (FEATURES | {"code_digest": "0ther"}, "features.code: none in bifusion; 0ther in inject_only"),
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


def test_looks_by_two_plans_are_refused_and_one_of_them_counts_if_allowed(runs: Path, make: Make) -> None:
    make("baseline.yaml", "max_seeds=5", chance=0.3)
    make("bifusion.yaml", "max_seeds=9", chance=0.4)
    with pytest.raises(DitrError, match="max_seeds: 5 in baseline; 9 in bifusion"):
        compared(runs, "baseline", "bifusion")
    found = compared(runs, "baseline", "bifusion", allow=("max_seeds",))
    assert found.contrasts[0].look == looks(9)[0]
    make("fpn_inject.yaml", chance=0.4)  # came later: the looks at the arm that it is held against stay
    assert compared(runs, "baseline", "fpn_inject").contrasts[0].look == looks(5)[0]
