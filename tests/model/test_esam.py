"""The whole model: identity of the fused arms, reproducibility, independence of samples, memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, get_args
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from ditr.data.batch import Batch, Sample
from ditr.data.samples import SampleSet
from ditr.errors import Code, DitrError
from ditr.geometry.sampling import sample_map
from ditr.model.esam import EsamSingleView
from ditr.model.output import ModelOutput
from ditr.model.sparse.minkowski import ME
from ditr.spec.fusion import BiFusionSpec, FusionSpec, InjectionSpec, StemSpec
from ditr.spec.fusion_part import Scale
from ditr.spec.models import AugmentationSpec, ElasticSpec, ModelSpec
from tests.reference.synthetic_frames import BoxFrames

Build = Callable[[FusionSpec], EsamSingleView]

BIFUSION = FusionSpec(bifusion=BiFusionSpec(width=16))
FPN_INJECT = FusionSpec(bifusion=BiFusionSpec(width=16), injection=InjectionSpec())
FUSIONS: dict[str, FusionSpec] = {
    "bifusion": BIFUSION,
    "fpn_inject": FPN_INJECT,
    "stem": FusionSpec(stem=StemSpec()),
    "stem bn": FusionSpec(stem=StemSpec(projection="linear_bn_gelu")),
    "everything": FusionSpec(
        bifusion=BiFusionSpec(width=64), injection=InjectionSpec(scales=(16, 8, 4, 2, 1)), stem=StemSpec()
    ),
}
SCALES: tuple[tuple[Scale, ...], ...] = ((16, 8, 4, 2, 1), (16,), (4, 1), (8, 2))
FUSIONS |= {
    " ".join(map(str, options)): FusionSpec(
        injection=InjectionSpec(
            pooling=options[0], order=options[1], projection=options[2], target=options[3], scales=SCALES[number % 4]
        )
    )
    for number, options in enumerate(
        product(
            get_args(InjectionSpec.model_fields["pooling"].annotation),
            get_args(InjectionSpec.model_fields["order"].annotation),
            get_args(InjectionSpec.model_fields["projection"].annotation),
            get_args(InjectionSpec.model_fields["target"].annotation),
        )
    )
}


def tensors(output: ModelOutput) -> Iterator[Tensor]:
    for sample in output.samples:
        yield sample.semantic_logits
        for head in sample.heads:
            yield head.class_logits
            yield head.masks


def loss_of(output: ModelOutput) -> Tensor:
    return torch.stack([(tensor.sigmoid() - 0.3).square().mean() for tensor in tensors(output)]).sum()


def test_size_of_the_reference_s_3d_only_model() -> None:
    model = EsamSingleView(
        ModelSpec(), fusion=FusionSpec(), feature_channels=None, sampling="bilinear", query_fraction=0.5
    )
    assert sum(p.numel() for p in model.parameters()) == 41_459_787
    assert {name.split(".")[0] for name in model.state_dict()} == {"backbone", "pool", "decoder"}
    assert sum(name.startswith("backbone.") for name in model.state_dict()) == 372


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model after one step's backward, what it gave just before training and then in it."""

    model: EsamSingleView
    evaluated: list[Tensor]
    trained: list[Tensor]


def once(model: EsamSingleView, batch: Batch) -> Trained:
    with torch.no_grad():
        evaluated = [*tensors(model.eval()(batch))]
    output = model.train()(batch)
    loss_of(output).backward()  # type: ignore[no-untyped-call]
    return Trained(model=model, evaluated=evaluated, trained=[tensor.detach() for tensor in tensors(output)])


@pytest.fixture(scope="module")
def plain(build: Build, make_sample: Callable[..., Sample]) -> Trained:
    """The 3D-only model."""
    return once(build(FusionSpec()), Batch(samples=(make_sample(1), make_sample(2, points=450, superpoints=7))))


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_starts_as_the_3d_only_model_bit_for_bit(
    name: str, plain: Trained, build: Build, batch: Batch
) -> None:
    fresh, fused = build(FusionSpec()), build(FUSIONS[name])
    added = set(fused.state_dict()) - set(fresh.state_dict())
    assert added
    assert {entry.split(".")[0] for entry in added} == set(FUSIONS[name].parts)
    for entry, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, fused.state_dict()[entry]), f"{entry}: same seed, other 3D weights"

    ours = once(fused, batch)
    for left, right in zip(plain.evaluated + plain.trained, ours.evaluated + ours.trained, strict=True):
        assert torch.equal(left, right)
    for entry, parameter in plain.model.named_parameters():
        torch.testing.assert_close(fused.get_parameter(entry).grad, parameter.grad)
    for entry, tensor in plain.model.named_buffers():  # running statistics after a training step
        assert torch.equal(tensor, fused.get_buffer(entry))


@pytest.mark.parametrize("name", FUSIONS)
def test_every_added_parameter_learns_within_two_steps(name: str, build: Build, batch: Batch) -> None:
    """A zero layer holds the gradient of what lies before it back for one step, not for ever."""
    torch.manual_seed(0)
    model = build(FUSIONS[name])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    added = [n for n, _ in model.named_parameters() if n.startswith(("injection.", "bifusion.", "stem."))]
    reached: set[str] = set()
    for _ in range(2):
        optimiser.zero_grad()
        output = model(batch)
        loss_of(output).backward()
        reached |= {n for n in added if (g := model.get_parameter(n).grad) is not None and bool((g != 0).any())}
        optimiser.step()
    assert set(added) == reached
    places = [*(f"s{stride}" for stride in fusion.injection.scales)] if (fusion := FUSIONS[name]).injection else []
    places += ["stem"] if fusion.stem else []
    statistics = model(batch).statistics
    assert all(statistics[f"injection_{place}_relative_norm"] > 0 for place in places)


def test_statistics_say_what_entered(build: Build, batch: Batch) -> None:
    output = build(FPN_INJECT)(batch)
    valid = torch.cat([sample.uv_valid for sample in batch]).float().mean().item()
    assert output.statistics["valid_ratio"] == pytest.approx(valid)
    assert 0 < output.statistics["fusion_2d_ratio"] < 1
    for stride in (8, 4, 2, 1):
        assert 0 <= output.statistics[f"injection_s{stride}_empty_ratio"] < 0.2
    assert "balance_loss" in output.fusion_losses
    assert build(FPN_INJECT).eval()(batch).fusion_losses == {}
    plain = build(FusionSpec())(batch)
    assert (plain.statistics, plain.fusion_losses) == ({}, {})


def test_missing_or_foreign_features_name_the_frame(
    build: Build, batch: Batch, make_sample: Callable[..., Sample]
) -> None:
    model = build(BIFUSION)
    for channels, what in [(None, "has none"), (5, "5 channels and the model was built for 12")]:
        bad = make_sample(9, channels=channels)
        with pytest.raises(DitrError, match=what) as caught:
            model(Batch(samples=(*batch.samples, bad)))
        assert (caught.value.code, caught.value.where) == (Code.FEATURES, "scene0000_00_9")
    build(FusionSpec())(Batch(samples=(make_sample(9, channels=None),)))


def test_a_fusion_without_channels_is_refused(small_model: ModelSpec) -> None:
    with pytest.raises(DitrError, match="channel count"):
        EsamSingleView(small_model, fusion=BIFUSION, feature_channels=None, sampling="nearest", query_fraction=0.5)


def randomise(model: EsamSingleView) -> EsamSingleView:
    """No zero is left that could hide a dependence."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if name.startswith(("injection.", "bifusion.", "stem.")):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_samples_of_a_batch_do_not_see_each_other(build: Build, batch: Batch) -> None:
    model = randomise(build(FPN_INJECT)).eval()
    with torch.no_grad():
        together = model(batch)
        for index, sample in enumerate(batch):
            alone = model(Batch(samples=(sample,)))
            for left, right in zip(together.samples[index].heads, alone.samples[0].heads, strict=True):
                torch.testing.assert_close(left.masks, right.masks, atol=1e-4, rtol=1e-4)
                size = len(sample.xyz) if left.level == "point" else sample.num_superpoints
                assert left.masks.shape == (sample.num_superpoints, size)


@pytest.mark.parametrize("training", [False, True])
def test_a_frame_of_one_superpoint_asks_one_query(
    build: Build, make_sample: Callable[..., Sample], training: bool
) -> None:
    batch = Batch(samples=(make_sample(1, superpoints=1), make_sample(2, points=450)))
    model = randomise(build(FPN_INJECT)).train(training)
    output = model(batch)
    loss_of(output).backward()  # type: ignore[no-untyped-call]
    assert [head.masks.shape for head in output.samples[0].heads] == [(1, 1), (1, 1), (1, 600), (1, 600)]
    assert all(tensor.isfinite().all() for tensor in tensors(output))
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_2d_features_change_the_output_only_of_a_fused_model(build: Build, batch: Batch) -> None:
    blank = Batch(samples=tuple(replace(s, tokens=torch.zeros_like(s.tokens)) for s in batch))  # type: ignore[arg-type]
    for fusion, same in [(FPN_INJECT, False), (FusionSpec(), True)]:
        model = randomise(build(fusion)).eval()
        pairs = zip(tensors(model(batch)), tensors(model(blank)), strict=True)
        assert all(torch.equal(left, right) for left, right in pairs) is same


def test_training_queries_follow_the_sample_s_seed(build: Build, batch: Batch) -> None:
    model = build(FusionSpec())
    once = [sample.query_superpoints.tolist() for sample in model(batch).samples]
    torch.manual_seed(99)
    assert [sample.query_superpoints.tolist() for sample in model(batch).samples] == once
    other = Batch(samples=tuple(replace(sample, seed=sample.seed + 1000) for sample in batch))
    assert [sample.query_superpoints.tolist() for sample in model(other).samples] != once
    assert [sample.query_superpoints.tolist() for sample in model.eval()(batch).samples] == [
        list(range(9)),
        list(range(7)),
    ]


def test_no_sparse_tensor_outlives_its_iteration(build: Build, batch: Batch) -> None:
    """Not even as a reference cycle, which would hold memory outside torch's allocator until the next collection."""
    model = build(FPN_INJECT)
    engine = (ME.SparseTensor, ME.TensorField, ME.CoordinateManager)

    def alive() -> list[str]:
        return [type(thing).__name__ for thing in gc.get_objects() if issubclass(type(thing), engine)]

    gc.collect()
    gc.disable()
    before = alive()  # of tests that share voxels
    try:
        for _ in range(2):
            output: Any = model(batch)
            loss_of(output).backward()
        del output
        after = alive()
    finally:
        gc.enable()
    assert after == before


def test_gradients_are_the_same_every_time_on_several_threads(build: Build, make_sample: Callable[..., Sample]) -> None:
    batch = Batch(samples=(make_sample(1, points=6000), make_sample(2, points=5000)))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients = []
        for _ in range(4):
            model = randomise(build(FPN_INJECT))
            torch.manual_seed(0)  # dropout
            loss_of(model(batch)).backward()
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for again in gradients[1:]:
        assert all(
            torch.equal(a, b) for a, b in zip(gradients[0], again, strict=True) if a is not None and b is not None
        )


def test_every_part_reads_what_the_reference_says(build: Build, batch: Batch) -> None:
    """Superpoints and point masks from the coordinates that are voxelised, 2D features at each point's pixel."""
    moved = Batch(samples=tuple(replace(sample, xyz=sample.xyz + 5) for sample in batch))
    model = build(BIFUSION).eval()
    seen: dict[str, tuple[Any, ...]] = {}
    model.pool.register_forward_pre_hook(lambda _, args: seen.update(pool=args))
    model.decoder.register_forward_pre_hook(lambda _, args: seen.update(decoder=args))
    honest = model.parts["bifusion"].fuse_points

    def fuse_points(*args: Any) -> Tensor:
        seen.update(bifusion=args)
        return honest(*args)

    with patch.object(model.parts["bifusion"], "fuse_points", fuse_points):
        model(moved)

    first, last = moved.samples
    assert torch.equal(seen["pool"][1], torch.cat([first.xyz, last.xyz]))
    assert torch.equal(seen["pool"][2].of_row, torch.cat([first.superpoints, last.superpoints + 9]))
    decoded = seen["decoder"][1][:, :, :3]
    assert torch.equal(decoded[0, : len(first.xyz)], first.xyz)
    assert torch.equal(decoded[1, : len(last.xyz)], last.xyz)
    points = seen["bifusion"][1].points
    assert torch.equal(points.valid, torch.cat([first.uv_valid, last.uv_valid]))
    expected = torch.cat(
        [sample_map(s.tokens, s.uv, map_hw=s.map_hw, mode="bilinear") for s in moved if s.tokens is not None]
    )
    assert torch.equal(points.dense(), expected)


def test_training_voxelises_pools_and_decodes_one_set_of_coordinates(build: Build) -> None:
    """Those after the elastic distortion, as in ESAM; superpoints pooled by others differ by 15 %."""
    spec = AugmentationSpec(elastic=ElasticSpec(probability=1.0))
    samples = SampleSet(BoxFrames(1, points=500), seed=0, voxel_size_m=0.05, augmentation=spec, tokens=None)
    model = build(FusionSpec()).train()
    seen: dict[str, tuple[Any, ...]] = {}
    for name in ("backbone", "pool", "decoder"):
        getattr(model, name).register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args}))
    model(Batch(samples=(samples[0],)))

    pooled, decoded, voxels = seen["pool"][1], seen["decoder"][1][0, :, :3], seen["backbone"][0].voxels.corners[:, 1:]
    assert (pooled - samples.without_elastic()[0].xyz).abs().max() > 0.05, "the distortion is more than a voxel"
    assert torch.equal(decoded, pooled)
    assert {*map(tuple, torch.floor(pooled / 0.05).int().tolist())} == {*map(tuple, voxels.tolist())}
