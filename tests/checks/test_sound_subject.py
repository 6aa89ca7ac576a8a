from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ditr.checks.measure import Check
from ditr.checks.stages import run_stage
from ditr.progress import silent
from ditr.spec.fusion import FusionSpec
from ditr.spec.models import ImageAugmentationSpec

if TYPE_CHECKING:
    from conftest import World

RAW = {"valid_ratio", "depth_ok", "boundary_ok", "uv_error_px", "lattice_error_px", "colour_error", "colours_in_place"}


def failed(checks: list[Check]) -> list[str]:
    return [f"{check.name} {check.value} {check.limit} {check.detail}" for check in checks if not check.passed]


@pytest.mark.parametrize("every_map", [True, False])
def test_sound_maps_pass(world: World, every_map: bool) -> None:
    checks = list(run_stage(1, world.subject(), every_map=every_map, progress=silent))
    assert failed(checks) == []
    assert len({check.name for check in checks}) == len(checks)


def test_sound_frames_pass(world: World) -> None:
    checks = list(run_stage(2, world.subject(), progress=silent))
    assert failed(checks) == []
    assert len({check.name for check in checks}) == len(checks)


def test_sound_frames_pass_online_with_jitter_and_mirroring(world: World) -> None:
    world.change(augmentation=ImageAugmentationSpec())
    world.go_online()
    world.sampled = 2
    checks = list(run_stage(2, world.subject(), progress=silent))
    assert failed(checks) == []
    assert "mirrored_together" in {check.name for check in checks}


def test_without_fusion_points_are_looked_at_and_maps_are_not(world: World) -> None:
    world.spec = world.spec.model_copy(update={"fusion": FusionSpec(), "features": None})
    world.sampled = 1
    checks = list(run_stage(2, world.subject(), progress=silent))
    assert failed(checks) == []
    names = {check.name for check in checks}
    assert names > RAW | {"forward_s", "batch_equals_single"}
    assert names.isdisjoint({"read_error_tokens", "map_extent", "map_matters", "fusion_2d_ratio"})


def test_the_model_is_left_as_it_was(world: World) -> None:
    before = {name: value.clone() for name, value in world.build().state_dict().items()}
    world.sampled = 1
    list(run_stage(2, world.subject(), progress=silent))
    assert all(value.equal(before[name]) for name, value in world.build().state_dict().items())
