"""Faults of pyramid and injection, planted in the model's code, each caught by a check with a name."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ditr.checks.measure import Check
from ditr.checks.stages import run_stage
from ditr.model import esam, voxel_features
from ditr.model.bifusion import BiFusion, LiteGate
from ditr.model.esam import EsamSingleView
from ditr.model.fusion import BatchFeatures
from ditr.model.injection import Injection, Projection
from ditr.model.injector import Adder, Injector
from ditr.model.segments import Segments
from ditr.model.sparse import VoxelSet
from ditr.model.sparse.minkowski import MinkowskiVoxels
from ditr.model.voxel_features import Coverage, VoxelFeatures
from ditr.progress import silent
from ditr.spec.fusion import BiFusionSpec, FusionSpec, InjectionSpec
from tests.reference.fused_subject import fused_subject
from tests.reference.synthetic_frames import tokens as tokens_of_frame

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]
MAX = FusionSpec(injection=InjectionSpec(pooling="max"))
MEAN = FusionSpec(injection=InjectionSpec(pooling="mean"))
GATE = FusionSpec(bifusion=BiFusionSpec(width=8))
MAX_PROJECTED_FIRST = FusionSpec(injection=InjectionSpec(pooling="max", order="project_then_pool"))


def _called(value: object) -> str | None:
    """Ids of the tests: what is planted, and what catches it."""
    return getattr(value, "__name__", "") if callable(value) else str(value) if isinstance(value, str) else ""


def failing(stage: int, fusion: FusionSpec, **of_subject: Any) -> dict[str, Check]:
    subject = fused_subject(fusion, **of_subject)
    return {one.name: one for one in run_stage(stage, subject, progress=silent) if not one.passed}


# Stage 3: on which voxels the levels lie, and what they hold


def features_of_half_the_stride(patch: Patch) -> None:
    honest = VoxelFeatures.coverage
    patch.setattr(VoxelFeatures, "voxels", lambda self, stride: honest(self, max(1, stride // 2)).voxels)
    patch.setattr(VoxelFeatures, "mask", lambda self, stride: honest(self, max(1, stride // 2)).mask)


def rows_in_another_order(patch: Patch) -> None:
    honest = VoxelFeatures.pooled
    patch.setattr(VoxelFeatures, "pooled", lambda self, stride, **named: honest(self, stride, **named).roll(1, 0))


def voxels_made_a_second_time(patch: Patch) -> None:
    """The same voxels in the same order, and yet not the backbone's."""
    honest = EsamSingleView.injector

    def injector(self: EsamSingleView, features: BatchFeatures) -> Any:
        voxels = features.in_space
        again = replace(voxels.tensor, voxels=copy(voxels.tensor.voxels))
        return honest(self, replace(features, in_space=replace(voxels, tensor=again)))

    patch.setattr(EsamSingleView, "injector", injector)


def zeros_in_the_maximum(patch: Patch) -> None:
    """Of voxels some of whose children have no feature."""

    def pool(self: VoxelFeatures, values: Tensor, *, stride: int, pooling: Any) -> Tensor:
        return self.coverage(stride).members.maximum(values)

    patch.setattr(VoxelFeatures, "_pool", pool)


def empty_children_in_the_mean(patch: Patch) -> None:
    honest = voxel_features._cover

    def cover(voxels: VoxelSet, members: Segments, with_feature: Tensor, **named: Any) -> Coverage:
        wrong = honest(voxels, members, torch.ones_like(with_feature), **named)
        return replace(wrong, mask=honest(voxels, members, with_feature, **named).mask)

    patch.setattr(voxel_features, "_cover", cover)


def wrong_parents(patch: Patch) -> None:
    honest = MinkowskiVoxels.parents.func
    patch.setattr(MinkowskiVoxels, "parents", property(lambda self: honest(self).roll(1)))


def features_of_another_batch_item(patch: Patch) -> None:
    honest = esam.stack
    patch.setattr(esam, "stack", lambda maps, readings, *, valid: honest(maps[::-1], readings, valid=valid))


def a_batch_item_without_features(patch: Patch) -> None:
    honest = esam.stack

    def stack(maps: Any, readings: Any, *, valid: Tensor) -> Any:
        count = len(readings[0].rows)
        return honest(maps, readings, valid=valid & (torch.arange(len(valid)) < count))

    patch.setattr(esam, "stack", stack)


def every_item_reads_the_first_map(patch: Patch) -> None:
    honest = esam.stack

    def stack(maps: Any, readings: Any, *, valid: Tensor) -> Any:
        points = honest(maps, readings, valid=valid)
        return replace(points, rows=points.rows % maps[0][0].numel())

    patch.setattr(esam, "stack", stack)


def voxels_of_other_coordinates(patch: Patch) -> None:
    honest = esam.voxelise

    def voxelise(batch: Any, *, voxel_size_m: float, engine: Any) -> Any:
        samples = tuple(replace(sample, xyz=sample.xyz.roll(1, dims=1)) for sample in batch)
        return honest(replace(batch, samples=samples), voxel_size_m=voxel_size_m, engine=engine)

    patch.setattr(esam, "voxelise", voxelise)


def rounded_coordinates(patch: Patch) -> None:
    honest = esam.voxelise

    def voxelise(batch: Any, *, voxel_size_m: float, engine: Any) -> Any:
        moved = tuple(replace(sample, xyz=sample.xyz + voxel_size_m / 2) for sample in batch)
        return honest(replace(batch, samples=moved), voxel_size_m=voxel_size_m, engine=engine)

    patch.setattr(esam, "voxelise", voxelise)


def order_of_the_spec_passed_over(patch: Patch) -> None:
    honest = Injection._added

    def added(self: Injection, *given: Any) -> Tensor:
        as_asked = self.spec
        self.spec = as_asked.model_copy(update={"order": "pool_then_project"})
        found = honest(self, *given)
        self.spec = as_asked
        return found

    patch.setattr(Injection, "_added", added)


def projection_never_called(patch: Patch) -> None:
    patch.setattr(EsamSingleView, "injector", lambda self, features: None)


def projection_thrown_away(patch: Patch) -> None:
    honest = Adder.__call__

    def call(self: Adder, branch: Any, stride: int, tensor: Any) -> Any:
        honest(self, branch, stride, tensor)
        return tensor

    patch.setattr(Adder, "__call__", call)


@pytest.mark.parametrize(
    ("plant", "fusion", "caught_by"),
    [
        (features_of_half_the_stride, MAX, "s8_stride"),
        (rows_in_another_order, MAX, "s8_values"),
        (rows_in_another_order, MEAN, "s1_values"),
        (voxels_made_a_second_time, MAX, "s1_same_voxels"),
        (zeros_in_the_maximum, MAX, "s2_values"),
        (empty_children_in_the_mean, MEAN, "s4_values"),
        (wrong_parents, MEAN, "s2_values"),
        (wrong_parents, MAX_PROJECTED_FIRST, "up_s2_projected"),
        (features_of_another_batch_item, MEAN, "s1_values"),
        (a_batch_item_without_features, MAX, "s1_empty_voxels s8_mask"),
        (every_item_reads_the_first_map, MAX, "s1_values"),
        (voxels_of_other_coordinates, MAX, "s1_voxels"),
        (rounded_coordinates, MAX, "s1_voxels"),
        (order_of_the_spec_passed_over, MAX_PROJECTED_FIRST, "up_s4_projected"),
        (projection_never_called, MAX, "injector"),
        (projection_thrown_away, MAX, "up_s8_projected"),
    ],
    ids=_called,
)
def test_stage_3_catches(plant: Plant, fusion: FusionSpec, caught_by: str, monkeypatch: Patch) -> None:
    plant(monkeypatch)
    assert set(caught_by.split()) <= failing(3, fusion).keys()


def test_features_that_are_not_finite_are_caught_at_the_finest_level() -> None:
    def tokens(frame_id: str) -> Tensor:
        return tokens_of_frame(frame_id).index_fill(0, torch.tensor([3]), torch.inf)

    found = failing(3, MAX, tokens=tokens)
    assert (found["s1_not_finite"].value or 0) > 0


def test_rows_in_another_order_are_called_that(monkeypatch: Patch) -> None:
    rows_in_another_order(monkeypatch)
    assert "the right values in wrong rows" in failing(3, MEAN)["s1_values"].detail


# Stage 4: what is added where, how it starts, and whether it learns


def base_replaced(patch: Patch) -> None:
    honest = Adder.__call__

    def call(self: Adder, branch: Any, stride: int, tensor: Any) -> Any:
        after = honest(self, branch, stride, tensor)
        return after if after is tensor else tensor.with_features(after.features - tensor.features)

    patch.setattr(Adder, "__call__", call)


def targets_swapped(patch: Patch) -> None:
    honest = Injection.add_to_voxels
    other = {"up": "skip", "skip": "up"}
    patch.setattr(
        Injection,
        "add_to_voxels",
        lambda self, features: {(other[at[0]], at[1]): added for at, added in honest(self, features).items()},
    )


def something_for_voxels_without_a_feature(patch: Patch) -> None:
    honest = Injector.additions

    def additions(self: Injector) -> dict[Any, Tensor]:
        found = honest(self)
        mask = self.features.voxels.mask
        return {at: torch.where(mask(at[1])[:, None], added, 1e-3) for at, added in found.items()}

    patch.setattr(Injector, "additions", additions)


def a_bias_after_the_projection(patch: Patch) -> None:
    honest = Projection.finish
    patch.setattr(Projection, "finish", lambda self, out, *, mask: honest(self, out, mask=mask) + 1e-3)


def norm_after_a_zero_layer(patch: Patch) -> None:
    honest = Projection.__init__

    def build(self: Projection, *sizes: int, **named: Any) -> None:
        honest(self, *sizes, **named)
        nn.init.zeros_(self.linear.weight)
        assert self.norm is not None
        nn.init.ones_(self.norm.weight)

    patch.setattr(Projection, "__init__", build)


def frozen_projection(patch: Patch) -> None:
    honest = Injection.__init__

    def build(self: Injection, *given: Any, **named: Any) -> None:
        honest(self, *given, **named)
        self.projections["stride8"].requires_grad_(False)

    patch.setattr(Injection, "__init__", build)


def projection_outside_of_the_graph(patch: Patch) -> None:
    honest = Projection.finish
    patch.setattr(Projection, "finish", lambda self, out, *, mask: honest(self, out, mask=mask).detach())


def other_3d_weights(patch: Patch) -> None:
    """Whatever draws before the 3D model is built."""
    honest = EsamSingleView.__init__

    def build(self: EsamSingleView, *given: Any, fusion: FusionSpec, **named: Any) -> None:
        torch.rand(len(fusion.parts))
        honest(self, *given, fusion=fusion, **named)

    patch.setattr(EsamSingleView, "__init__", build)


def adapter_made_in_a_forward_pass(patch: Patch) -> None:
    honest = BiFusion.fuse_points

    def fuse_points(self: BiFusion, x: Tensor, features: BatchFeatures) -> Tensor:
        if not hasattr(self, "adapter"):
            self.adapter = nn.Linear(x.shape[1], x.shape[1])
        return honest(self, x + 0 * self.adapter(x), features)

    patch.setattr(BiFusion, "fuse_points", fuse_points)


def adapter_that_no_optimizer_knows(patch: Patch) -> None:
    honest = BiFusion.fuse_points
    made: dict[int, nn.Module] = {}

    def fuse_points(self: BiFusion, x: Tensor, features: BatchFeatures) -> Tensor:
        adapter = made.setdefault(id(self), nn.Linear(x.shape[1], x.shape[1]))
        return honest(self, x + 0 * adapter(x), features)

    patch.setattr(BiFusion, "fuse_points", fuse_points)


def gate_never_called(patch: Patch) -> None:
    patch.setattr(EsamSingleView, "_fuse_points", lambda self, x, features: x)


def gate_thrown_away(patch: Patch) -> None:
    honest = EsamSingleView._fuse_points

    def fuse_points(self: EsamSingleView, x: Tensor, features: Any) -> Tensor:
        honest(self, x, features)
        return x

    patch.setattr(EsamSingleView, "_fuse_points", fuse_points)


def gate_closed_to_2d(patch: Patch) -> None:
    patch.setattr(LiteGate, "forward", lambda self, in_2d, in_3d, features: in_2d.new_zeros(len(in_2d), 1))


def gate_draws_in_evaluation(patch: Patch) -> None:
    honest = LiteGate.forward
    patch.setattr(LiteGate, "forward", lambda self, *inputs: honest(self, *inputs) * torch.rand(1))


NORMS = FusionSpec(injection=InjectionSpec(scales=(4, 1), projection="linear_bn_gelu"))


@pytest.mark.parametrize(
    ("plant", "fusion", "caught_by"),
    [
        (base_replaced, MAX, "up_s4_added identity_at_start"),
        (targets_swapped, MAX, "changed_elsewhere up_s8_zero_rows"),
        (something_for_voxels_without_a_feature, MAX, "up_s1_changed_without_feature"),
        (a_bias_after_the_projection, MAX, "identity_at_start"),
        (norm_after_a_zero_layer, NORMS, "up_s4_doubling"),
        (frozen_projection, MAX, "frozen_weights up_s8_gradient"),
        (projection_outside_of_the_graph, MAX, "weights_without_gradient"),
        (projection_never_called, MAX, "up_s8_moved"),
        (projection_thrown_away, MAX, "up_s2_zero_rows"),
        (other_3d_weights, GATE, "start_weights_3d"),
        (adapter_made_in_a_forward_pass, GATE, "late_weights"),
        (adapter_that_no_optimizer_knows, GATE, "weights_outside_model"),
        (gate_never_called, GATE, "part_bifusion_not_called"),
        (gate_thrown_away, GATE, "bifusion_residual_gradient"),
        (gate_closed_to_2d, GATE, "gate_2d_gradient"),
        (gate_draws_in_evaluation, GATE, "repeatable"),
    ],
    ids=_called,
)
def test_stage_4_catches(plant: Plant, fusion: FusionSpec, caught_by: str, monkeypatch: Patch) -> None:
    plant(monkeypatch)
    assert set(caught_by.split()) <= failing(4, fusion).keys()


def test_a_model_that_gives_no_number_is_caught() -> None:
    def tokens(frame_id: str) -> Tensor:
        return torch.full_like(tokens_of_frame(frame_id), torch.nan)

    assert "output_not_finite" in failing(4, FusionSpec(injection=InjectionSpec(scales=(1,))), tokens=tokens)
