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


def test_in_compat_there_is_none() -> None:
    assert esam_differences(spec(esam_compat=True), trained_on=10001, evaluated=2780, without_background=3) == ""


def test_the_default_names_each_with_esams_side() -> None:
    assert esam_differences(spec(), trained_on=10001, evaluated=2780, without_background=3).split("; ") == [
        "Q1 no instance is lost in frames without background, 3 of the 2780 evaluated (ESAM: the first of each is)",
        "Q3 earlier heads' dice weighs 0.25 in every step (ESAM: 0.25, 4 in an epoch's last)",
        "Q4 the last epoch's learning rate is above the decay's final 0 (ESAM: equal to it)",
        "Q6 ap is the mean over 0.50 to 0.95 (ESAM: to 0.90, here ap_to_90)",
    ]


@pytest.mark.parametrize(
    ("changes", "trained_on", "expected"),
    [
        ({}, 10000, ["Q1", "Q4", "Q6"]),  # 625 whole batches: 4 / 16 is the default
        ({"loss": {"dice_aux": 1.0}}, 10000, ["Q1", "Q3", "Q4", "Q6"]),
        ({"loss": {"dice_aux": 1.0}, "schedule": {"batch_size": 4}}, 8, ["Q1", "Q4", "Q6"]),
        ({"loss": {"dice_aux": 1.0}, "schedule": {"batch_size": 4}}, 9, ["Q1", "Q3", "Q4", "Q6"]),
        ({"loss": {"dice_aux": 2.0}, "schedule": {"batch_size": 4}}, 2, ["Q1", "Q4", "Q6"]),  # one step, of two
        ({"loss": {"mask_dice": 0.0}}, 10001, ["Q1", "Q4", "Q6"]),
        ({"schedule": {"decay": {"kind": "constant"}}}, 10000, ["Q1", "Q6"]),
        ({"schedule": {"epochs": 1}}, 10000, ["Q1", "Q6"]),
        ({}, None, ["Q1", "Q6"]),  # evaluated without a training
    ],
)
def test_only_what_applies_is_named(changes: dict[str, Any], trained_on: int | None, expected: list[str]) -> None:
    text = esam_differences(spec(**changes), trained_on=trained_on, evaluated=2, without_background=0)
    assert numbers(text) == expected


def test_a_smaller_only_step_is_told_by_its_own_factor() -> None:
    text = esam_differences(spec(), trained_on=2, evaluated=2, without_background=0)
    assert "Q3 earlier heads' dice weighs 0.25 in every step (ESAM: 2)" in text
