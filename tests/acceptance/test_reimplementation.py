"""The numbered acceptance tests of the re-implementation (docs/reference/esam.md, Acceptance), one function a number.

Each states the essential thing once; its docstring names the file that tests it thoroughly. Two numbers are not here.
10, the trajectory of a training on ScanNet, needs ScanNet: a user imports ESAM's log with ``ditr import esam-log`` and
compares it with a run by ``ditr query``. 11, flat device memory over thousands of steps, is ``benchmarks/memory.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ditr.catalog import locate_checkpoint
from ditr.data.batch import Batch, Sample, Targets
from ditr.data.dataset import Dataset
from ditr.data.frame import Frame
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import FrameSet
from ditr.data.targets import make_targets
from ditr.evaluation.instance_ap import ESAM_THRESHOLDS, scores
from ditr.evaluation.instances import Instances
from ditr.evaluation.match_table import MatchTable
from ditr.evaluation.postprocess import matrix_nms
from ditr.geometry.camera import project
from ditr.model.esam import EsamSingleView
from ditr.model.output import ModelOutput, to_floats
from ditr.model.sparse import SparseTensor, voxelise
from ditr.runner.inputs import fresh_model
from ditr.spec.execution import with_engine
from ditr.spec.fusion import FusionSpec, InjectionSpec
from ditr.spec.fusion_part import Branch
from ditr.spec.load import load_spec
from ditr.spec.models import LossSpec, ModelSpec, ScheduleSpec, Spec
from ditr.spec.registry import Registry
from ditr.training.criterion import Criterion
from ditr.training.matching import match, own_cost
from ditr.training.schedule import learning_rate
from ditr.training.truth import Things
from ditr.weights.loading import load_weights
from tests.reference.loop_model import LoopHead, LoopOutput
from tests.reference.padded_outputs import masks_of, padded
from tests.reference.pyramid import build_pyramid
from tests.reference.slow_scannet_eval import SlowFrame, slow_scores

SPECS = Path(__file__).resolve().parents[2] / "specs"


def test_01_the_372_backbone_entries_load_and_the_model_has_esams_size(tmp_path: Path) -> None:
    """Names and shapes from the appendix: tests/model/test_res16unet.py; files: test_published_checkpoints.py."""
    plain = FusionSpec()
    model = EsamSingleView(
        ModelSpec(), fusion=plain, feature_channels=None, sampling="bilinear", query_fraction=0.5
    ).requires_grad_(False)
    assert sum(p.numel() for p in model.backbone.parameters()) == 37_854_112
    assert sum(p.numel() for p in model.parameters()) == 41_459_787
    stored = {f"backbone.{name}": torch.full_like(t, 2) for name, t in model.backbone.state_dict().items()}
    torch.save({"state_dict": stored}, tmp_path / "mask3d_scannet200.pth")
    report = load_weights(model, tmp_path / "mask3d_scannet200.pth", format="mask3d", entries=372)
    assert report.matched == len(stored) == 372
    assert {name.partition(".")[0] for name in report.missing} == {"pool", "decoder"}
    assert all((tensor == 2).all() for tensor in model.backbone.state_dict().values())


def test_02_voxels_are_floored_and_averaged_and_read_back_in_point_order() -> None:
    """tests/model/test_sparse.py, and a second implementation in test_against_torch_sparse.py."""
    xyz = torch.tensor([[0.03, 0.0, 0.0], [-0.01, -0.03, 0.0], [0.021, 0.0, 0.019], [-0.019, -0.021, 0.001]])
    colour = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [3.0, 0.0, 4.0], [0.0, 6.0, 1.0]])
    voxels = voxelise(Batch(samples=(sample_of(xyz=xyz, colour=colour),)), voxel_size_m=0.02, engine="minkowski")
    assert voxels.tensor.voxels.corners[voxels.voxel_of_point].tolist() == [[0, 1, 0, 0], [0, -1, -2, 0]] * 2
    assert voxels.tensor.features[voxels.voxel_of_point].tolist() == [[2.0, 0.0, 2.0], [0.0, 4.0, 0.5]] * 2


def test_03_the_first_instance_is_lost_without_background_in_compat_only_and_majorities_are_strict() -> None:
    """tests/data/test_targets.py."""
    chair, table, wall = 2, 4, 1

    def targets(*points: tuple[int, int, int], esam_compat: bool = False) -> Targets:
        instance, semantic, superpoint = np.array(points).T
        return make_targets(instance, semantic, superpoint, esam_compat=esam_compat)

    things = [(5, chair, 0), (5, chair, 0), (6, table, 1), (6, table, 2), (5, chair, 2)]
    assert targets(*things).instance_of_point.tolist() == [0, 0, 1, 1, 0]
    assert targets(*things, esam_compat=True).instance_of_point.tolist() == [-1, -1, 0, 0, -1]
    for esam_compat in (False, True):
        found = targets(*things, (0, wall, 3), esam_compat=esam_compat)
        assert found.instance_of_point.tolist() == [0, 0, 1, 1, 0, -1]
        assert found.instance_of_superpoint.tolist() == [0, 1, -1, -1], "half of superpoint 2 is no majority"


def test_04_the_matcher_without_own_query_with_a_tie_and_with_one_or_two_queries() -> None:
    """tests/training/test_matching.py."""
    good, bad = [5.0, 5.0, -5.0], [-5.0, -5.0, 5.0]

    def pairs(masks: list[list[float]], own: list[bool]) -> list[tuple[int, int]]:
        thing = Things(masks=torch.tensor([[[1.0, 1.0, 0.0]]]), everywhere=torch.ones(1, 1, 3))
        logits = masks_of(torch.tensor([masks]), level="superpoint")
        owners = torch.tensor([own]).int() - 1  # 0 is the only thing
        cost = own_cost(torch.zeros(1, len(masks), 2), logits, query_owners=owners, things=thing)
        answers = match(cost, query_owners=owners, things=1)
        return [(query, thing) for _, thing, query in answers.nonzero().tolist()]

    assert pairs([good, good], [False, False]) == []
    assert pairs([good, bad, [0.0] * 3], [False, True, True]) == [(2, 0)]
    assert pairs([good, good, bad], [True, True, True]) == []
    assert pairs([bad], [True]) == [(0, 0)]
    assert pairs([bad, good], [True, True]) == [(1, 0)]


@pytest.mark.parametrize("batch_size", [1, 16])
def test_05_dice_weighs_4_and_4_over_b_and_no_match_is_finite_with_esams_gradient(batch_size: int) -> None:
    """tests/training/test_criterion.py."""
    compat = Criterion(LossSpec(), esam_compat=True)
    plain = Criterion(LossSpec(dice_final=1.0, dice_aux=1.0))
    outputs, batch = predictions(batch_size, queries=(0, 1))
    weighted, unweighted = (to_floats(loss(padded(outputs, batch), batch).terms) for loss in (compat, plain))
    factors = [weighted[f"dice_{head}"] / unweighted[f"dice_{head}"] for head in range(4)]
    assert factors == pytest.approx([4 / batch_size] * 3 + [4])

    outputs, batch = predictions(batch_size, queries=(1,))  # superpoint 1 is inside no thing
    losses = compat(padded(outputs, batch), batch)
    assert math.isfinite(losses.total.item())
    assert losses.unmatched_samples == batch_size
    masks = [head.masks for sample in outputs for head in sample.heads]
    esams = losses.total + torch.stack([logits[:0].mean() for logits in masks]).sum()  # its means over no match
    assert math.isnan(esams.item())
    leaves = [*masks, *(head.class_logits for sample in outputs for head in sample.heads)]
    ours, theirs = (torch.autograd.grad(total, leaves, retain_graph=True) for total in (losses.total, esams))
    assert all(torch.equal(left, right) for left, right in zip(ours, theirs, strict=True))


def test_06_matrix_nms_with_ties_and_the_evaluator_against_the_slow_protocol() -> None:
    """tests/evaluation/test_postprocess.py, and test_instance_ap.py: 2,300 frames and every case of the protocol."""
    masks = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]])
    (decayed,) = matrix_nms(masks[None], torch.tensor([[0.5, 0.5, 0.25]]))[1]
    # the twin is suppressed whole and suppresses nobody; IoU 1/3 with the first leaves two thirds of the third
    assert decayed.tolist() == pytest.approx([0.5, 0.25 * 2 / 3, 0.0])

    assert len(ESAM_THRESHOLDS) == 9
    assert (ESAM_THRESHOLDS[0], ESAM_THRESHOLDS[-1]) == (0.5, 0.9)
    rng = np.random.default_rng(0)
    frames = [random_frame(rng) for _ in range(60)]
    table = MatchTable(min_points=12)
    for index, frame in enumerate(frames):
        table.add(str(index), Instances(masks=frame.masks, scores=frame.scores), frame.instance_of_point)
    found = scores(table, thresholds=ESAM_THRESHOLDS)
    assert 0.05 < found.ap < found.ap50 < found.ap25 < 0.95
    assert (found.ap, found.ap50, found.ap25) == pytest.approx(slow_scores(frames, min_points=12), abs=1e-9)


def test_07_the_learning_rates_of_esams_log() -> None:
    """tests/training/test_schedule.py."""
    logged = {1: 1e-4, 2: 9.9291e-5, 3: 9.8582e-5, 64: 5.3968e-5, 100: 2.5646e-5, 126: 2.385e-6, 127: 1.278e-6, 128: 0}
    schedule = ScheduleSpec(epochs=128, learning_rate=1e-4)
    for epoch, rate in logged.items():
        assert learning_rate(schedule, epoch - 1, esam_compat=True) == pytest.approx(rate, abs=5.1e-10), epoch


def test_08_pixels_of_raw_points_are_integers_and_augmentation_leaves_them_alone(tiny_dataset: Dataset) -> None:
    """tests/geometry/test_camera.py and tests/data/test_samples.py."""
    frame = tiny_dataset.train.frame(0)
    uv = project(frame.points[:, :3], pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics).uv
    assert np.abs(uv - uv.round()).max() < 0.05
    spec = load_spec(SPECS / "baseline.yaml", registry=Registry()).spec
    moved = samples_of(tiny_dataset.train, spec, augmented=True)
    still = samples_of(tiny_dataset.train, spec, augmented=False)
    for epoch in (0, 1):
        moved.set_epoch(epoch)
        assert torch.equal(moved[0].uv, still[0].uv)
        assert not torch.allclose(moved[0].xyz, still[0].xyz, atol=0.05)
    np.testing.assert_allclose(still[0].uv.numpy(), uv, atol=1e-3)


GATED = FusionSpec(injection=InjectionSpec(projection="linear_bn_gelu"))
"""Its zero is one scale a channel, after the norm: a gate."""


@pytest.mark.parametrize(
    ("arm", "stepped", "limit"),
    [("gate", ".norm.", 0.01), ("bifusion", "", 0.03), ("fpn_inject", "", 0.03)],
)
def test_09_a_fused_arm_is_the_3d_model_bit_for_bit_and_leaves_it_slowly(
    arm: str, stepped: str, limit: float, tiny_dataset: Dataset
) -> None:
    """tests/model/test_esam.py and tests/model/test_injection.py. Trained 3D weights, random 2D features.

    After 10 steps of a gate alone its point features are within 1 % of the 3D model's. The arms have a zero layer in
    its place, of which AdamW moves every weight by the learning rate a step: they get a wider limit, and as much may
    not come from the first step, as it would from a norm after the zero layer.
    """
    spec = load_spec(SPECS / "fpn_inject.yaml", registry=Registry()).spec
    fusion = GATED if arm == "gate" else load_spec(SPECS / f"{arm}.yaml", registry=Registry()).spec.fusion
    spec, plain_spec = (spec.model_copy(update={"fusion": one}) for one in (fusion, FusionSpec()))
    samples = samples_of(Thinned(tiny_dataset.train), spec, augmented=False)
    batch = Batch(samples=(samples[0], samples[1]))
    for training in (False, True):
        one, two = (trained(one_spec).train(training)(batch) for one_spec in (plain_spec, spec))
        assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(two), strict=True))

    model, expected = trained(spec), point_features(trained(plain_spec).eval(), batch)
    added = [p for n, p in model.named_parameters() if n.startswith(("injection.", "bifusion.")) and stepped in n]
    optimiser = torch.optim.AdamW(added, lr=1e-4, weight_decay=0.05)
    criterion = Criterion(spec.loss)
    deviations = []
    for _ in range(10):
        for name, part in model.named_children():  # what is not added stays as it is, running statistics too
            part.train(name in ("injection", "bifusion"))
        optimiser.zero_grad()
        criterion(model(batch), batch).total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        deviations.append(float((point_features(model.eval(), batch) - expected).norm() / expected.norm()))
    assert 0 < deviations[0] < limit / 5, deviations
    assert deviations[0] < deviations[9] < limit, deviations


@torch.no_grad()
def point_features(model: EsamSingleView, batch: Batch) -> Tensor:
    """(N, C): what the network, with all that was added, hands to superpoints and decoder."""
    seen = []
    hook = model.pool.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(batch)
    hook.remove()
    return seen[0]


def test_09_map_keys_of_2d_levels_are_the_backbones_at_every_stride(tiny_dataset: Dataset) -> None:
    """tests/model/test_pyramid.py."""
    spec = load_spec(SPECS / "fpn_inject.yaml", registry=Registry()).spec
    model = trained(spec).eval()
    samples = samples_of(Thinned(tiny_dataset.train), spec, augmented=False)
    batch = Batch(samples=(samples[0], samples[1]))
    voxels = voxelise(batch, voxel_size_m=spec.model.voxel_size_m, engine="minkowski")
    points = model.read_2d(batch, statistics={})
    assert points is not None
    levels = build_pyramid(points, voxels, strides=(16, 8, 4, 2, 1), pooling="max")
    seen = []

    def look(branch: Branch, stride: int, tensor: SparseTensor) -> SparseTensor:
        assert tensor.voxels is levels[stride].tensor.voxels
        seen.append((branch, stride))
        return tensor

    with torch.no_grad():
        model.backbone(voxels.tensor, inject=look)
    branches = [(branch, stride) for stride in (8, 4, 2, 1) for branch in ("up", "skip")]
    assert seen == [("stem", 1), ("bottleneck", 16), *branches]


CHANNELS = 12


class Thinned:
    """Every sixteenth point of the frames, with the superpoints that are left."""

    def __init__(self, frames: FrameSet) -> None:
        self._frames = frames

    def frame(self, index: int) -> Frame:
        frame = self._frames.frame(index)
        chosen = slice(None, None, 16)
        return replace(
            frame,
            points=frame.points[chosen],
            superpoints=np.unique(frame.superpoints[chosen], return_inverse=True)[1],
            instance_ids=frame.instance_ids[chosen],
            semantic_ids=frame.semantic_ids[chosen],
        )


def samples_of(frames: FrameSet | Thinned, spec: Spec, *, augmented: bool) -> SampleSet:
    return SampleSet(
        frames,  # type: ignore[arg-type]
        seed=0,
        voxel_size_m=spec.model.voxel_size_m,
        augmentation=spec.augmentation if augmented else None,
        tokens=lambda _: torch.randn(CHANNELS, 30, 40, generator=torch.Generator().manual_seed(0)).half(),
    )


def trained(spec: Spec) -> EsamSingleView:
    """The spec's model with its checkpoint; what the checkpoint has not is as initialised."""
    model = fresh_model(with_engine(spec, "minkowski"), seed=0, feature_channels=CHANNELS)
    assert spec.checkpoint is not None
    file = locate_checkpoint(spec.checkpoint, registry=Registry())
    load_weights(model, file.path, format=file.format, key_prefix=file.key_prefix, entries=file.entries)
    return model


def tensors(output: ModelOutput) -> Iterator[Tensor]:
    for sample in output.samples:
        yield sample.semantic_logits
        for head in sample.heads:
            yield head.class_logits
            yield head.masks


def sample_of(*, xyz: Tensor, colour: Tensor, superpoints: Tensor | None = None, **targets: Tensor) -> Sample:
    points = len(xyz)
    superpoints = torch.zeros(points, dtype=torch.int64) if superpoints is None else superpoints
    none = torch.zeros(0, dtype=torch.int64)
    names = ("instance_of_point", "instance_of_superpoint", "class_of_superpoint", "labels", "ids")
    empty = dict.fromkeys(names, none)
    return Sample(
        frame_id="scene0000_00_0",
        seed=0,
        xyz=xyz,
        colour=colour,
        camera=torch.zeros(3, dtype=torch.float64),
        superpoints=superpoints,
        num_superpoints=int(superpoints.max()) + 1,
        uv=torch.zeros(points, 2),
        uv_valid=torch.zeros(points, dtype=torch.bool),
        map_hw=(480, 640),
        tokens=None,
        targets=Targets(**(empty | targets)),
    )


def predictions(count: int, *, queries: tuple[int, ...]) -> tuple[list[LoopOutput], Batch]:
    """Samples of six points in two superpoints; the first of these is the only thing."""
    rng = torch.Generator().manual_seed(0)
    superpoints = torch.tensor([0, 0, 0, 1, 1, 1])
    sample = sample_of(
        xyz=torch.zeros(6, 3),
        colour=torch.zeros(6, 3),
        superpoints=superpoints,
        instance_of_point=-superpoints,
        instance_of_superpoint=torch.tensor([0, -1]),
        class_of_superpoint=torch.tensor([7, 0]),
        labels=torch.tensor([5]),
        ids=torch.tensor([1]),
    )

    def output() -> LoopOutput:
        def leaf(*shape: int) -> Tensor:
            return torch.randn(len(queries), *shape, generator=rng).requires_grad_()

        heads = tuple(
            LoopHead(class_logits=leaf(2), masks=leaf(size), level=level)  # type: ignore[arg-type]
            for level, size in (("superpoint", 2), ("superpoint", 2), ("point", 6), ("point", 6))
        )
        return LoopOutput(heads=heads, semantic_logits=leaf(201), query_superpoints=torch.tensor(queries))

    return [output() for _ in range(count)], Batch(samples=(sample,) * count)


def random_frame(rng: np.random.Generator) -> SlowFrame:
    """Instances and void of all sizes; predictions of some instances, with noise, twins and equal scores."""
    cuts = np.sort(rng.integers(0, 200, size=7))
    truth = np.searchsorted(cuts, np.arange(200), side="right") - 1
    truth = np.unique(np.where(truth == 3, -1, truth), return_inverse=True)[1] - 1
    masks = (truth == rng.integers(-1, truth.max() + 1, size=(9, 1))) ^ (
        rng.random((9, 200)) < rng.choice([0.0, 0.02, 0.2], size=(9, 1))
    )
    confidence = np.sort(rng.integers(1, 8, size=9) / 8)[::-1].astype(np.float32)
    return SlowFrame(masks, confidence, truth)
