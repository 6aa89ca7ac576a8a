"""The 3D-only model against a second implementation of everything that MinkowskiEngine does in it.

``tests/reference/torch_sparse.py`` voxelises and runs the backbone in plain torch; the pool, the decoder and the loss
that follow are ditr's own modules on both sides (they are plain torch, and tested apart), so that the whole chain is
differentiated. In float64, so that the two may differ by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

from ditr.data.batch import Batch, Sample
from ditr.data.targets import make_targets
from ditr.model.esam import EsamSingleView
from ditr.model.output import ModelOutput
from ditr.model.res16unet import Res16UNet
from ditr.model.sparse import voxelise
from ditr.spec.fusion import FusionSpec
from ditr.spec.models import BackboneSpec, LossSpec, ModelSpec
from ditr.training.criterion import Criterion
from tests.reference import torch_sparse

VOXEL_SIZE_M = 0.05


def boxes(seed: int, *, points: int) -> Sample:
    """Boxes of things on a floor around the origin; a quarter of the voxels hold four points, the others one.

    Not three: MinkowskiEngine weighs the points of a voxel in float32, which is exact for powers of two only.
    """
    rng = np.random.default_rng(seed)
    box = rng.integers(5, size=2 * points)  # 0 is the floor
    origin = np.array([[0.0, 0.0, -0.4], [0.7, 0.1, 0.0], [-0.7, 0.2, 0.0], [0.1, 0.8, 0.0], [0.0, -0.8, 0.1]])
    xyz = origin[box] + rng.uniform(-0.3, 0.3, size=(2 * points, 3)) * np.where(box == 0, 4, 1)[:, None]
    elastic = xyz + rng.normal(scale=0.01, size=xyz.shape)
    _, alone = np.unique(np.floor(elastic / VOXEL_SIZE_M), axis=0, return_index=True)
    rows = rng.permutation(alone)[: 4 * points // 7]
    rows = np.concatenate([rows, np.tile(rows[: len(rows) // 4], 3)])
    box, xyz, elastic, points = box[rows], xyz[rows], elastic[rows], len(rows)
    _, superpoints = np.unique(4 * box + 2 * (xyz[:, 0] > 0.1) + (xyz[:, 1] > 0.1), return_inverse=True)
    semantic = np.array([3, 4, 5, 6, 7])[box]
    return Sample(
        frame_id=f"scene0000_00_{seed}",
        seed=seed,
        xyz=torch.from_numpy(elastic),
        colour=torch.from_numpy(rng.normal(size=(points, 3))),
        camera=torch.zeros(3, dtype=torch.float64),
        superpoints=torch.from_numpy(superpoints),
        num_superpoints=int(superpoints.max()) + 1,
        uv=torch.zeros(points, 2),
        uv_valid=torch.ones(points, dtype=torch.bool),
        map_hw=(480, 640),
        tokens=None,
        targets=make_targets(box.astype(np.int64), semantic, superpoints),
    )


@pytest.fixture(scope="module")
def two_frames() -> Batch:
    return Batch(samples=(boxes(1, points=400), boxes(2, points=300)))


@pytest.fixture
def model(small_model: ModelSpec) -> EsamSingleView:
    """In float64, and no norm is an identity."""
    torch.manual_seed(0)
    model = EsamSingleView(
        small_model, fusion=FusionSpec(), feature_channels=None, sampling="bilinear", query_fraction=0.5
    ).double()
    stir(model.backbone)
    return model


def stir(backbone: Res16UNet) -> None:
    for name, tensor in backbone.state_dict().items():
        if name.endswith(("running_var", ".bn.weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", ".bn.bias")):
            tensor.normal_(std=0.2)


def reference_features(backbone: torch_sparse.Res16UNet, batch: Batch, *, voxel_size_m: float) -> Tensor:
    """(N, C) of all points of the batch."""
    voxels, colours, voxel_of_point = torch_sparse.voxelise(
        [sample.xyz for sample in batch], [sample.colour for sample in batch], voxel_size=voxel_size_m
    )
    return backbone(colours, voxels)[voxel_of_point]


def reference_output(twin: EsamSingleView, backbone: torch_sparse.Res16UNet, batch: Batch) -> ModelOutput:
    features = reference_features(backbone, batch, voxel_size_m=twin.voxel_size_m)
    return twin._decode(features, batch)


def tensors(output: ModelOutput) -> Iterator[Tensor]:
    for sample in output.samples:
        yield sample.semantic_logits
        for head in sample.heads:
            yield head.class_logits
            yield head.masks


def smooth(output: ModelOutput, batch: Batch) -> Tensor:
    """Every output counts, in float64."""
    return torch.stack([(tensor.sigmoid() - 0.3).square().mean() for tensor in tensors(output)]).sum()


def training_loss(output: ModelOutput, batch: Batch) -> Tensor:
    losses = Criterion(LossSpec())(output, batch)
    assert losses.unmatched_samples == 0, "else the mask terms are not tested"
    return losses.total


def test_the_frames_hold_what_can_go_wrong(two_frames: Batch) -> None:
    voxels, _, voxel_of_point = torch_sparse.voxelise(
        [sample.xyz for sample in two_frames],
        [sample.colour for sample in two_frames],
        voxel_size=VOXEL_SIZE_M,
    )
    assert (voxels.corners[:, 1:] < 0).any(dim=0).all(), "voxels below zero on every axis"
    assert voxel_of_point.bincount().unique().tolist() == [1, 4], "points that share a voxel"
    for _ in range(4):
        voxels = voxels.coarser()
    assert (voxels.corners[:, 0] == 1).sum() > 4, "voxels at stride 16"


@pytest.mark.parametrize("loss_of", [smooth, training_loss])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_loss_gradients_and_running_statistics(
    model: EsamSingleView,
    two_frames: Batch,
    training: bool,
    loss_of: Callable[[ModelOutput, Batch], Tensor],
) -> None:
    twin = deepcopy(model).train(training)
    state = dict(twin.backbone.named_parameters()) | dict(twin.backbone.named_buffers())
    backbone = torch_sparse.Res16UNet(state, training=training)
    expected = reference_output(twin, backbone, two_frames)
    expected_loss = loss_of(expected, two_frames)
    expected_loss.backward()  # type: ignore[no-untyped-call]

    output = model.train(training)(two_frames)
    loss = loss_of(output, two_frames)
    loss.backward()  # type: ignore[no-untyped-call]

    for ours, theirs in zip(tensors(output), tensors(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * float(theirs.detach().abs().max()))
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-10)
    for name, parameter in model.named_parameters():
        wanted = twin.get_parameter(name).grad
        assert parameter.grad is not None, name
        assert wanted is not None, name
        deviation = float((parameter.grad - wanted).norm() / wanted.norm())
        assert deviation < 1e-10, f"{name}: {deviation:.1e} of its gradient"
    running = {name for name, _ in model.backbone.named_buffers() if "running_" in name}
    assert set(backbone.running) == (running if training else set())
    for name, tensor in backbone.running.items():
        torch.testing.assert_close(model.backbone.get_buffer(name), tensor, rtol=1e-12, atol=1e-12)


def test_the_backbone_at_its_full_width() -> None:
    torch.manual_seed(0)
    backbone = Res16UNet(BackboneSpec()).double().eval()
    stir(backbone)
    batch = Batch(samples=(boxes(3, points=120), boxes(4, points=80)))
    with torch.no_grad():
        voxels = voxelise(batch, voxel_size_m=VOXEL_SIZE_M, engine="minkowski")
        found = backbone(voxels.tensor).features[voxels.voxel_of_point]
        reference = torch_sparse.Res16UNet(backbone.state_dict(), training=False)
        expected = reference_features(reference, batch, voxel_size_m=VOXEL_SIZE_M)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
