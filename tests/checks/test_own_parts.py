"""``ditr check`` of fusion parts that are not built in: a sound one passes, a fault of one is caught by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from ditr.checks.forward import measure_forward
from ditr.checks.measure import Check
from ditr.checks.stages import run_stage
from ditr.fusion import Additions, BatchFeatures, FusionModule, FusionPart, Place, Segments, Sizes
from ditr.model.sparse.minkowski import MinkowskiVoxels
from ditr.model.voxel_features import VoxelFeatures
from ditr.progress import silent
from ditr.spec.fusion import BiFusionSpec, FusionSpec, InjectionSpec
from tests.reference.fused_subject import fused_subject
from tests.reference.own_parts import INSIDE, UP, Everywhere, EverywhereModule

OWN = FusionSpec(own=Everywhere())  # type: ignore[call-arg]
BESIDE = FusionSpec(  # at the places of built-in parts, too
    bifusion=BiFusionSpec(width=8),
    injection=InjectionSpec(scales=(16, 4)),
    own=Everywhere(),  # type: ignore[call-arg]
)


def checks(fusion: FusionSpec) -> Iterator[Check]:
    """Of stages 2 (as far as it is about the model), 3 and 4."""
    subject = fused_subject(fusion)
    for measured in measure_forward(subject, indices=[0, 1], progress=silent):
        yield from measured.checks(stage=2, limits=subject.spec.checks)
    for stage in (3, 4):
        yield from run_stage(stage, subject, progress=silent)


def failing(fusion: FusionSpec) -> set[str]:
    return {one.name for one in checks(fusion) if not one.passed}


@pytest.mark.parametrize("fusion", [OWN, BESIDE], ids=["alone", "beside built-in ones"])
def test_a_sound_part_passes(fusion: FusionSpec) -> None:
    found = list(checks(fusion))
    assert [(one.name, one.value, one.limit, one.detail) for one in found if not one.passed] == []
    names = [one.name for one in found]
    assert len(names) == len(set(names))
    of_part = {name.removeprefix("part_own_") for name in names if name.startswith("part_own_")}
    learns = {"gradient", "moved", "map_matters"}
    assert (
        of_part == {"not_called", "not_finite", "starts_as_nothing", "acts", "changed_without_feature", "rows"} | learns
    )
    assert {"s4_values", "s16_values", "map_matters", "batch_equals_single", "identity_at_start"} <= set(names)


def own(module: type[EverywhereModule], *, promises: bool = True) -> FusionSpec:
    class Spoilt(Everywhere):
        leaves_missing = promises

        def build(self, sizes: Sizes) -> EverywhereModule:
            return module(self, sizes)

    return FusionSpec(own=Spoilt())  # type: ignore[call-arg]


class StartsAsSomething(EverywhereModule):
    def __init__(self, part: Everywhere, sizes: Sizes) -> None:
        super().__init__(part, sizes)
        nn.init.normal_(self.of_points.weight)


class ReadsNoMap(EverywhereModule):
    """Each part of it, of the 3D features alone."""

    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        return {UP: features.voxels.mask(4)[:, None] * self.up.weight.sum(dim=1)}

    def fuse_voxels(self, x: Tensor, place: Place, features: BatchFeatures) -> Tensor:
        return x * (1 + features.voxels.mask(16)[:, None] * self.scale.weight.sum(dim=1)) if place == INSIDE else x

    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        return torch.where(features.points.valid[:, None], x + self.of_points.bias, x)

    def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
        return x


class OthersPoints(EverywhereModule):
    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        return torch.where(features.points.valid[:, None], x + (super().fuse_points(x, features) - x).roll(1, 0), x)


class OthersVoxels(EverywhereModule):
    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        found = super().add_to_voxels(features)
        return {place: added.roll(1, 0) * features.voxels.mask(place[1])[:, None] for place, added in found.items()}


class OthersVoxelsInside(EverywhereModule):
    def fuse_voxels(self, x: Tensor, place: Place, features: BatchFeatures) -> Tensor:
        fused = super().fuse_voxels(x, place, features)
        return x if fused is x else x + (fused - x).flip(0) * features.voxels.mask(16)[:, None]


class TouchesPoints(EverywhereModule):
    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        return x + self.of_points(torch.relu(features.points.matrix() @ self.hidden(features.points.tokens)))


class TouchesVoxels(EverywhereModule):
    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        return {place: added + added.abs().max() for place, added in super().add_to_voxels(features).items()}


class TouchesSuperpoints(EverywhereModule):
    def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
        return super().fuse_superpoints(x, superpoints, features) + self.of_superpoints.bias


class DividesByNothing(EverywhereModule):
    """The mean of the features of a superpoint that has none."""

    def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
        count = superpoints.sum(features.points.valid.float()[:, None])
        return x + (super().fuse_superpoints(x, superpoints, features) - x) * count / count


class Frozen(EverywhereModule):
    def __init__(self, part: Everywhere, sizes: Sizes) -> None:
        super().__init__(part, sizes)
        self.requires_grad_(False)


class Detached(EverywhereModule):
    def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
        return x + (super().fuse_superpoints(x, superpoints, features) - x).detach()


class ThrownAway(EverywhereModule):
    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        super().add_to_voxels(features)
        return {}

    def fuse_voxels(self, x: Tensor, place: Place, features: BatchFeatures) -> Tensor:
        return x

    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        super().fuse_points(x, features)
        return x

    def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
        return x


class Draws(EverywhereModule):
    """Where no training asks for it."""

    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        return x + (super().fuse_points(x, features) - x) * torch.rand(1)


class MixesSamples(EverywhereModule):
    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        fused = super().fuse_points(x, features)
        return torch.where(features.points.valid[:, None], fused - (fused - x).mean(dim=0), x)


class LayerOfThePass(EverywhereModule):
    """No optimizer knows it."""

    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        if not hasattr(self, "late"):
            self.late = nn.Linear(x.shape[1], x.shape[1])
        return super().fuse_points(x + 0 * self.late(x), features)


class NormAfterZero(EverywhereModule):
    """What a last layer gives is brought to unit variance, so that an update changes all at once."""

    def __init__(self, part: Everywhere, sizes: Sizes) -> None:
        super().__init__(part, sizes)
        self.norm = nn.LayerNorm(sizes.points)
        nn.init.ones_(self.norm.bias)

    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        return torch.where(features.points.valid[:, None], x + self.norm(super().fuse_points(x, features) - x), x)


FAULTS = {
    StartsAsSomething: "part_own_starts_as_nothing identity_at_start",
    ReadsNoMap: "part_own_map_matters map_matters weights_without_gradient",
    OthersPoints: "part_own_rows",
    OthersVoxels: "part_own_rows",
    OthersVoxelsInside: "part_own_rows",
    TouchesPoints: "part_own_changed_without_feature",
    TouchesVoxels: "part_own_changed_without_feature",
    TouchesSuperpoints: "part_own_changed_without_feature",
    DividesByNothing: "part_own_not_finite",
    Frozen: "frozen_weights part_own_gradient part_own_moved",
    Detached: "weights_without_gradient",
    ThrownAway: "part_own_acts map_matters part_own_gradient part_own_moved",
    Draws: "repeatable",
    MixesSamples: "batch_equals_single",
    LayerOfThePass: "late_weights",
    NormAfterZero: "part_own_starts_as_nothing identity_at_start",
}


@pytest.mark.parametrize("module", FAULTS, ids=lambda module: module.__name__)
def test_a_fault_is_caught_by_name(module: type[EverywhereModule]) -> None:
    assert set(FAULTS[module].split()) <= failing(own(module))


def test_a_part_may_say_that_it_changes_what_has_no_feature() -> None:
    assert failing(own(TouchesPoints, promises=False)) == set()


def test_a_part_that_overrides_nothing_is_said_to_do_nothing() -> None:
    class Idle(FusionPart):
        def build(self, sizes: Sizes) -> FusionModule:
            return FusionModule()

    assert {"part_own_not_called", "part_own_acts"} <= failing(FusionSpec(own=Idle()))  # type: ignore[call-arg]


def wrong_parents(patch: pytest.MonkeyPatch) -> None:
    honest = MinkowskiVoxels.parents.func
    patch.setattr(MinkowskiVoxels, "parents", property(lambda self: honest(self).roll(1)))


def zeros_in_the_maximum(patch: pytest.MonkeyPatch) -> None:
    def pool(self: VoxelFeatures, values: Tensor, *, stride: int, pooling: str) -> Tensor:
        return self.coverage(stride).members.maximum(values)

    patch.setattr(VoxelFeatures, "_pool", pool)


@pytest.mark.parametrize(("plant", "caught_by"), [(wrong_parents, "s16_values"), (zeros_in_the_maximum, "s4_values")])
def test_levels_that_only_an_own_part_reads_are_looked_at(
    plant: Callable[[pytest.MonkeyPatch], None], caught_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert caught_by in failing(OWN)
