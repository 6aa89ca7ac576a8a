"""What a row of results says about how its run differs from ESAM."""

from __future__ import annotations

from typing import Any

import pytest

from ditr.spec.esam import esam_differences
from ditr.spec.models import Spec


def spec(**changes: Any) -> Spec:
    return Spec.model_validate({"name": "arm", "dataset": {"name": "rooms"}, **changes})


def numbers(text: str) -> list[str]:
    return [one.split()[0] for one in text.split("; ")]


def test_in_compat_only_the_logged_losses_differ_and_only_of_a_training() -> None:
    compat = spec(esam_compat=True)
    trained = esam_differences(compat, trained_on=10001, evaluated=2780, without_background=3)
    assert (numbers(trained), "NaN" in trained) == (["Q2"], True)
    assert esam_differences(compat, trained_on=None, evaluated=2780, without_background=3) == ""


def test_the_default_names_each_with_esams_side() -> None:
    assert esam_differences(spec(), trained_on=10001, evaluated=2780, without_background=3).split("; ") == [
        (
            "Q1 no instance is lost in frames without background, 3 of the 2780 evaluated, and id 0 is no instance"
            " (ESAM: the first of each is lost, and 0 is one where its class is a thing's)"
        ),
        "Q2 a sample without a match or a class adds 0 to the logged losses (ESAM: NaN, with these gradients)",
        "Q3 earlier heads' dice weighs 0.25 in every step (ESAM: 0.25, 4 in an epoch's last)",
        "Q4 the learning rate is 0 after the last epoch, so all but the first epoch's differ (ESAM: in it)",
        "Q6 ap is the mean over 0.50 to 0.95 (ESAM: to 0.90, here ap_to_90)",
    ]


@pytest.mark.parametrize(
    ("changes", "trained_on", "expected"),
    [
        ({}, 10000, ["Q1", "Q2", "Q4", "Q6"]),  # 625 whole batches: 4 / 16 is the default
        ({"loss": {"dice_aux": 1.0}}, 10000, ["Q1", "Q2", "Q3", "Q4", "Q6"]),
        ({"loss": {"dice_aux": 1.0}, "schedule": {"batch_size": 4}}, 8, ["Q1", "Q2", "Q4", "Q6"]),
        ({"loss": {"dice_aux": 1.0}, "schedule": {"batch_size": 4}}, 9, ["Q1", "Q2", "Q3", "Q4", "Q6"]),
        ({"loss": {"dice_aux": 2.0}, "schedule": {"batch_size": 4}}, 2, ["Q1", "Q2", "Q4", "Q6"]),  # one step, of two
        ({"loss": {"mask_dice": 0.0}}, 10001, ["Q1", "Q2", "Q4", "Q6"]),
        ({"schedule": {"decay": {"kind": "constant"}}}, 10000, ["Q1", "Q2", "Q6"]),
        ({"schedule": {"epochs": 1}}, 10000, ["Q1", "Q2", "Q6"]),
        ({}, None, ["Q1", "Q6"]),  # evaluated without a training
    ],
)
def test_only_what_applies_is_named(changes: dict[str, Any], trained_on: int | None, expected: list[str]) -> None:
    text = esam_differences(spec(**changes), trained_on=trained_on, evaluated=2, without_background=0)
    assert numbers(text) == expected


def test_a_smaller_only_step_is_told_by_its_own_factor() -> None:
    text = esam_differences(spec(), trained_on=2, evaluated=2, without_background=0)
    assert "Q3 earlier heads' dice weighs 0.25 in every step (ESAM: 2)" in text
