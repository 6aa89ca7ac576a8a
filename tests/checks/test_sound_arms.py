"""Models without a fault pass both stages, whatever their fusion is made of."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from ditr.checks.measure import Check
from ditr.checks.stages import run_stage
from ditr.progress import silent
from ditr.spec.fusion import BiFusionSpec, FusionSpec, InjectionSpec, StemSpec
from tests.reference.fused_subject import fused_subject

GATE = BiFusionSpec(width=8)
ARMS = {
    "baseline": FusionSpec(),
    "bifusion": FusionSpec(bifusion=GATE),
    "stem": FusionSpec(stem=StemSpec()),
    "max": FusionSpec(bifusion=GATE, injection=InjectionSpec(pooling="max")),
    "mean": FusionSpec(bifusion=GATE, injection=InjectionSpec(pooling="mean")),
    "max, projected first": FusionSpec(injection=InjectionSpec(pooling="max", order="project_then_pool")),
    "mean, projected first": FusionSpec(injection=InjectionSpec(pooling="mean", order="project_then_pool")),
    "bottleneck": FusionSpec(injection=InjectionSpec(scales=(16, 4))),
    "skip, with norms": FusionSpec(
        injection=InjectionSpec(target="skip", projection="linear_bn_gelu"), stem=StemSpec(projection="linear_bn_gelu")
    ),
    "norms, projected first": FusionSpec(
        injection=InjectionSpec(scales=(2, 1), projection="linear_bn_gelu", order="project_then_pool")
    ),
}


def both_stages(fusion: FusionSpec, **of_spec: Any) -> list[Check]:
    subject = fused_subject(fusion, **of_spec)
    return [*run_stage(3, subject, progress=silent), *run_stage(4, subject, progress=silent)]


@cache
def of_arm(name: str) -> tuple[Check, ...]:
    return tuple(both_stages(ARMS[name]))


@pytest.mark.parametrize("name", ARMS)
def test_a_sound_arm_passes(name: str) -> None:
    checks = of_arm(name)
    assert [(check.name, check.value, check.limit, check.detail) for check in checks if not check.passed] == []
    names = [(check.stage, check.name) for check in checks]
    assert len(names) == len(set(names)), "a name says which check it is"


def test_each_part_has_its_checks() -> None:
    names = {name: {check.name for check in of_arm(name)} for name in ARMS}
    assert names["baseline"] == {"output_not_finite", "repeatable", "late_weights"}
    assert "part_bifusion_moved" in names["bifusion"]
    assert not any(name.startswith(("s1_", "up_")) for name in names["bifusion"])
    assert {"s1_values", "stem_projected", "stem_added", "stem_doubling"} <= names["stem"]
    assert "s2_values" not in names["stem"], "nothing coarser is made"
    assert {"s16_values", "s2_values", "bottleneck_added", "up_s4_moved"} <= names["bottleneck"]
    assert "up_s2_added" not in names["bottleneck"]


def test_random_projections_have_no_identity_to_keep() -> None:
    checks = {
        check.name: check for check in both_stages(FusionSpec(injection=InjectionSpec(scales=(2,), init="random")))
    }
    assert checks["identity_at_start"].limit == "reported"
    assert (checks["identity_at_start"].value or 0) > 0
    assert "up_s2_doubling" not in checks
    assert all(check.passed for check in checks.values())


def test_one_frame_is_enough() -> None:
    checks = both_stages(ARMS["skip, with norms"], frames=1)
    assert [check.name for check in checks if not check.passed] == []


def test_the_model_that_is_checked_stays_as_it_was() -> None:
    subject = fused_subject(ARMS["max"])
    before = {name: weight.clone() for name, weight in subject.model.state_dict().items()}
    list(run_stage(3, subject, progress=silent))
    list(run_stage(4, subject, progress=silent))
    after = subject.model.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    assert not subject.model.training
