"""Fusion parts of any origin in the model: in one order, under their own names, of the right shapes, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from ditr.data.batch import Batch
from ditr.errors import DitrError
from ditr.fusion import Additions, BatchFeatures, FusionModule, FusionPart, Place, Segments, Sizes
from ditr.model.esam import EsamSingleView
from ditr.model.output import ModelOutput
from ditr.spec.fusion import BiFusionSpec, FusionSpec, InjectionSpec, StemSpec
from tests.reference.own_parts import Everywhere

Build = Callable[[FusionSpec], EsamSingleView]


def fusion_of(**parts: Any) -> FusionSpec:
    return FusionSpec(**parts)


def tensors(output: ModelOutput) -> list[Tensor]:
    return [tensor for one in output.samples for head in one.heads for tensor in (head.class_logits, head.masks)]


def part_of(module: type[FusionModule]) -> FusionPart:
    class Part(FusionPart):
        def build(self, sizes: Sizes) -> FusionModule:
            return module()

    return Part()


def test_an_own_part_starts_as_nothing_and_reaches_every_head(build: Build, batch: Batch) -> None:
    plain, model = build(FusionSpec()), build(fusion_of(own=Everywhere()))
    assert {name.partition(".")[0] for name in model.state_dict()} - {"backbone", "pool", "decoder"} == {"own"}
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    ours, theirs = (tensors(one.eval()(batch)) for one in (model, plain))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    start = tensors(model.train()(batch))
    for layer in ("up", "skip", "scale", "of_points", "of_superpoints"):
        weight = model.get_parameter(f"own.{layer}.weight")
        torch.nn.init.normal_(weight)
        found = tensors(model.train()(batch))
        assert not torch.equal(found[0], start[0]), layer
        torch.nn.init.zeros_(weight)


def test_parts_are_built_and_act_in_one_order(build: Build, batch: Batch) -> None:
    came: list[str] = []

    def named(name: str) -> FusionPart:
        class Noted(FusionModule):
            def __init__(self) -> None:
                super().__init__()
                came.append(f"{name} built")

            def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
                came.append(f"{name} points")
                return x

            def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
                came.append(f"{name} superpoints")
                return x

        return part_of(Noted)

    model = build(fusion_of(b=named("b"), stem=StemSpec(), a=named("a"), bifusion=BiFusionSpec(width=8)))
    assert tuple(model.parts) == ("bifusion", "stem", "a", "b")
    model(batch)
    assert came == ["a built", "b built", "a points", "b points", "a superpoints", "b superpoints"]


def test_additions_of_several_parts_at_one_place_are_their_sum(build: Build, batch: Batch) -> None:
    class Ones(FusionModule):
        def add_to_voxels(self, features: BatchFeatures) -> Additions:
            return {("up", 2): torch.ones(len(features.voxels.voxels(2)), 8)}

    seen: list[Additions] = []
    model = build(fusion_of(injection=InjectionSpec(scales=(2,), init="random"), a=part_of(Ones), b=part_of(Ones)))
    alone = build(fusion_of(injection=InjectionSpec(scales=(2,), init="random")))
    for one in (model, alone):
        features = BatchFeatures(points=one.read_2d(batch, statistics={}), in_space=one.voxelise(batch))  # type: ignore[arg-type]
        injector = one.injector(features)
        assert injector is not None
        seen.append(injector.additions())
    torch.testing.assert_close(seen[0]["up", 2], seen[1]["up", 2] + 2)


def test_two_branches_of_a_stride_have_statistics_of_their_own(build: Build, batch: Batch) -> None:
    class Both(FusionModule):
        def add_to_voxels(self, features: BatchFeatures) -> Additions:
            count = len(features.voxels.voxels(8))
            return {("up", 8): torch.zeros(count, 12), ("skip", 8): torch.zeros(count, 8)}

    statistics = build(fusion_of(own=part_of(Both)))(batch).statistics
    assert {"injection_up_s8_relative_norm", "injection_skip_s8_relative_norm"} <= statistics.keys()


class TooWide(FusionModule):
    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        return {("up", 2): torch.zeros(len(features.voxels.voxels(2)), 9)}


class AtNoPlace(FusionModule):
    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        return {("up", 3): torch.zeros(1, 1)}


class LosesPoints(FusionModule):
    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        return x[1:]


class Halves(FusionModule):
    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        return x.half()


class OnAnotherDevice(FusionModule):
    def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
        return x.to("meta")


class GivesNothing(FusionModule):
    def fuse_voxels(self, x: Tensor, place: Place, features: BatchFeatures) -> Tensor:  # type: ignore[return]
        pass


class Raises(FusionModule):
    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        raise KeyError("width")


class LosesVoxels(FusionModule):
    def fuse_voxels(self, x: Tensor, place: Place, features: BatchFeatures) -> Tensor:
        return x[1:] if place == ("bottleneck", 16) else x


class LosesSuperpoints(FusionModule):
    def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
        return x[:, 1:]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (TooWide, r"the fusion part own gives \(\d+, 9\) at up_s2, where there is \(\d+, 8\)"),
        (AtNoPlace, r"own adds something at \('up', 3\), which is no place of the backbone"),
        (LosesPoints, r"own gives \(1049, 6\) at the points, where there is \(1050, 6\)"),
        (Halves, "own gives torch.float16 at the points, where there is torch.float32"),
        (OnAnotherDevice, "own gives a tensor on meta at the superpoints, where there is one on cpu"),
        (GivesNothing, "own gives a NoneType at stem, where there is a tensor"),
        (Raises, r"the fusion part own fails: KeyError: 'width' \(.*test_fusion.py:\d+\)"),
        (LosesVoxels, "own gives .* at bottleneck, where there is"),
        (LosesSuperpoints, r"own gives \(16, 5\) at the superpoints, where there is \(16, 6\)"),
    ],
)
def test_another_shape_is_refused_by_name(module: type[FusionModule], message: str, build: Build, batch: Batch) -> None:
    with pytest.raises(DitrError, match=message) as caught:
        build(fusion_of(own=part_of(module)))(batch)
    assert caught.value.where == "fusion.own"


def test_what_is_no_module_or_has_no_free_name_is_refused(build: Build) -> None:
    class Linear(FusionPart):
        def build(self, sizes: Sizes) -> nn.Module:
            return nn.Linear(1, 1)

    with pytest.raises(DitrError, match="the fusion part own builds a Linear, not a FusionModule"):
        build(fusion_of(own=Linear()))
    with pytest.raises(DitrError, match="a fusion part cannot be called training"):
        build(fusion_of(training=part_of(FusionModule)))


def test_losses_and_statistics_of_a_part_are_logged_and_learnt(build: Build, batch: Batch) -> None:
    output = build(fusion_of(own=Everywhere(), bifusion=BiFusionSpec(width=8))).train()(batch)
    assert output.fusion_losses.keys() == {"balance_loss", "everywhere_loss"}
    assert output.statistics["everywhere_shift"] == 0
    assert not output.statistics["everywhere_shift"].requires_grad


def test_a_pass_that_is_replayed_needs_of_a_batch_what_is_added_and_no_more(build: Build, batch: Batch) -> None:
    """As a captured one gets it: copies of the additions, on voxels that it is given."""

    class Adds(FusionModule):
        def add_to_voxels(self, features: BatchFeatures) -> Additions:
            return {("skip", 4): 0.1 * features.voxels.pooled(4, pooling="max")[:, :6]}

    def replay(x: Any, *, added: Additions, inject: Callable[..., Any]) -> Any:
        met: dict[Place, Tensor] = {}
        adder = inject({place: value.clone() for place, value in added.items()}, x.voxels, met)
        with patch.object(adder.injector, "features", None):
            return model.backbone(x, inject=adder), met

    model = build(fusion_of(own=part_of(Adds), injection=InjectionSpec(init="random"), stem=StemSpec(init="random")))
    direct = model.train()(batch)
    model._replay = replay  # type: ignore[assignment]
    replayed = model(batch)
    assert all(torch.equal(one, other) for one, other in zip(tensors(replayed), tensors(direct), strict=True))
    assert replayed.statistics == direct.statistics


def test_a_statistic_of_another_shape_is_refused(build: Build, batch: Batch) -> None:
    class Says(FusionModule):
        def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
            features.statistics["mine"] = x.mean(dim=1)
            return x

    with pytest.raises(DitrError, match=r"the statistic mine of a fusion part has the shape \(1050,\)"):
        build(fusion_of(own=part_of(Says)))(batch)


def test_a_part_can_tell_whose_a_token_is(build: Build, batch: Batch) -> None:
    """Superpoints that attend to the tokens of their own frame alone; each frame is as it is alone."""

    class Attends(FusionModule):
        def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
            owner = superpoints.maximum(features.samples.sample_of_row.float()[:, None]).long()
            own = owner == features.tokens.sample_of_row[None]
            scores = (x @ features.points.tokens[:, : x.shape[1]].T).masked_fill(~own, -torch.inf)
            return x + scores.softmax(dim=1) @ features.points.tokens[:, : x.shape[1]]

    model = build(fusion_of(own=part_of(Attends))).eval()
    together = tensors(model(batch))
    alone = [tensors(model(Batch(samples=(sample,)))) for sample in batch]
    for one, other in zip(together, alone[0] + alone[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_only_a_part_that_reads_the_backbone_inside_keeps_a_pass_from_being_captured(build: Build) -> None:
    everything = fusion_of(bifusion=BiFusionSpec(width=8), injection=InjectionSpec(), stem=StemSpec())
    assert build(everything).uncaptured == ()
    assert build(fusion_of(own=Everywhere(), stem=StemSpec())).uncaptured == ("own",)


def test_features_in_space_are_not_held_while_the_decoder_works(build: Build, batch: Batch) -> None:
    """They are the largest tensors of a step that nobody needs any more; a part that asks again gets the same."""
    held: list[bool] = []
    inside: list[Tensor] = []

    class Late(FusionModule):
        def add_to_voxels(self, features: BatchFeatures) -> Additions:
            inside.append(features.voxels.pooled(4, pooling="max"))
            return {}

        def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
            held.append("voxels" in vars(features))
            assert torch.equal(features.voxels.pooled(4, pooling="max"), inside[-1])
            return x

    build(fusion_of(injection=InjectionSpec(), late=part_of(Late))).train()(batch)
    assert held == [False]
