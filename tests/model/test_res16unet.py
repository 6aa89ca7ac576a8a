"""The backbone against the reference's tables and against a dense re-computation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv3d, conv_transpose3d, relu

from ditr.data.batch import Batch
from ditr.model.res16unet import Res16UNet, skip_widths, widths_of
from ditr.model.sparse import SparseTensor, voxelise
from ditr.model.sparse.minkowski import ME, MinkowskiVoxels
from ditr.spec.fusion_part import Branch
from ditr.spec.models import BackboneSpec


@pytest.fixture(scope="module")
def full() -> Res16UNet:
    return Res16UNet(BackboneSpec())


def reference_entries() -> dict[str, tuple[int, ...]]:
    """The 372 names and shapes (docs/reference/esam.md, State dict), typed from the table."""
    entries: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        entries.update({f"{name}.bn.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")})
        entries[f"{name}.bn.num_batches_tracked"] = ()

    entries["conv0p1s1.kernel"] = (125, 3, 32)
    for name, width in [("conv1p1s2", 32), ("conv2p2s2", 32), ("conv3p4s2", 64), ("conv4p8s2", 128)]:
        entries[f"{name}.kernel"] = (8, width, width)
    for name, shape in [
        ("convtr4p16s2", (8, 256, 256)),
        ("convtr5p8s2", (8, 256, 128)),
        ("convtr6p4s2", (8, 128, 96)),
        ("convtr7p2s2", (8, 96, 96)),
    ]:
        entries[f"{name}.kernel"] = shape
    for name, width in [("bn0", 32), ("bn1", 32), ("bn2", 32), ("bn3", 64), ("bn4", 128)]:
        norm(name, width)
    for name, width in [("bntr4", 256), ("bntr5", 128), ("bntr6", 96), ("bntr7", 96)]:
        norm(name, width)
    blocks = [(2, 32, 32), (3, 32, 64), (4, 64, 128), (6, 128, 256), (2, 384, 256), (2, 192, 128), (2, 128, 96)]
    for block, (count, first, width) in enumerate([*blocks, (2, 128, 96)], start=1):
        for index in range(count):
            name = f"block{block}.{index}"
            entries[f"{name}.conv1.kernel"] = (27, first if index == 0 else width, width)
            entries[f"{name}.conv2.kernel"] = (27, width, width)
            norm(f"{name}.norm1", width)
            norm(f"{name}.norm2", width)
        if first != width:
            entries[f"block{block}.0.downsample.0.kernel"] = (first, width)
            norm(f"block{block}.0.downsample.1", width)
    return entries


def test_state_dict_is_the_reference_s(full: Res16UNet) -> None:
    entries = {name: tuple(tensor.shape) for name, tensor in full.state_dict().items()}
    assert entries == reference_entries()
    assert len(entries) == 372
    assert sum(p.numel() for p in full.parameters()) == 37_854_112


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("conv0p1s1", 12_000),
        ("block1", 110_848),
        ("block2", 611_200),
        ("block3", 3_328_256),
        ("conv4p8s2", 131_072),
        ("block4", 20_388_352),
        ("convtr4p16s2", 524_288),
        ("block5", 8_063_488),
        ("block6", 2_016_512),
        ("block7", 1_091_520),
        ("block8", 1_091_520),
    ],
)
def test_stage_sizes(full: Res16UNet, name: str, count: int) -> None:
    assert sum(p.numel() for p in full.get_submodule(name).parameters()) == count


def test_norm_momentum_is_small_outside_the_blocks(full: Res16UNet) -> None:
    norms = {name: module for name, module in full.named_modules() if isinstance(module, nn.BatchNorm1d)}
    assert len(norms) == 62
    for name, norm in norms.items():
        inside = ".norm1." in name or ".norm2." in name
        assert (norm.momentum, norm.eps) == (0.1 if inside else 0.02, 1e-5), name


def test_forward_is_the_dense_network(small_backbone: BackboneSpec) -> None:
    torch.manual_seed(0)
    net = Res16UNet(small_backbone).eval()
    state = net.state_dict()
    for name, tensor in state.items():  # so that no norm is an identity
        if name.endswith(("running_var", ".bn.weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", ".bn.bias")):
            tensor.normal_(std=0.2)
    volume = torch.randn(1, 3, 16, 16, 16)
    grid = torch.stack(torch.meshgrid(*[torch.arange(16)] * 3, indexing="ij"), dim=-1).reshape(-1, 3)
    coordinates = torch.cat([torch.zeros(len(grid), 1), grid], dim=1).int()
    cube = ME.SparseTensor(volume[0].flatten(1).T.contiguous(), coordinates=coordinates)
    voxels = MinkowskiVoxels(cube.coordinate_map_key, manager=cube.coordinate_manager, stride=1)
    out = net(SparseTensor(features=cube.F, voxels=voxels))
    expected = DenseUNet(state, layers=small_backbone.layers)(volume)
    x, y, z = out.voxels.corners[:, 1:].long().T
    torch.testing.assert_close(out.features.detach(), expected[0, :, x, y, z].T, atol=1e-4, rtol=1e-4)


class DenseUNet:
    """The table (docs/reference/esam.md, Backbone) on a cube without a hole, in plain torch."""

    def __init__(self, state: dict[str, Tensor], *, layers: tuple[int, ...]) -> None:
        self.state = state
        self.layers = layers

    def __call__(self, x: Tensor) -> Tensor:
        p1 = relu(self.norm("bn0", self.conv("conv0p1s1", x, kernel=5)))
        p2 = self.down(1, "conv1p1s2", p1)
        p4 = self.down(2, "conv2p2s2", p2)
        p8 = self.down(3, "conv3p4s2", p4)
        x = self.down(4, "conv4p8s2", p8)
        x = self.up(4, "convtr4p16s2", x, p8)
        x = self.up(5, "convtr5p8s2", x, p4)
        x = self.up(6, "convtr6p4s2", x, p2)
        return self.up(7, "convtr7p2s2", x, p1)

    def down(self, stage: int, name: str, x: Tensor) -> Tensor:
        x = relu(self.norm(f"bn{stage}", self.conv(name, x, kernel=2)))
        return self.block(stage, x)

    def up(self, stage: int, name: str, x: Tensor, skip: Tensor) -> Tensor:
        kernel = self.state[f"{name}.kernel"]
        weight = kernel.reshape(2, 2, 2, *kernel.shape[1:]).permute(3, 4, 2, 1, 0)
        x = relu(self.norm(f"bntr{stage}", conv_transpose3d(x, weight, stride=2)))
        return self.block(stage + 1, torch.cat([x, skip], dim=1))

    def block(self, number: int, x: Tensor) -> Tensor:
        for index in range(self.layers[number - 1]):
            name = f"block{number}.{index}"
            out = relu(self.norm(f"{name}.norm1", self.conv(f"{name}.conv1", x, kernel=3)))
            out = self.norm(f"{name}.norm2", self.conv(f"{name}.conv2", out, kernel=3))
            if f"{name}.downsample.0.kernel" in self.state:
                kernel = self.state[f"{name}.downsample.0.kernel"]
                x = self.norm(f"{name}.downsample.1", conv3d(x, kernel.T[:, :, None, None, None]))
            x = relu(out + x)
        return x

    def conv(self, name: str, x: Tensor, *, kernel: int) -> Tensor:
        weight = self.state[f"{name}.kernel"]
        weight = weight.reshape(kernel, kernel, kernel, *weight.shape[1:]).permute(4, 3, 2, 1, 0)
        return conv3d(x, weight, stride=2) if kernel == 2 else conv3d(x, weight, padding=kernel // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        parts = [self.state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return batch_norm(x, *parts)


def test_hook_sees_stem_bottleneck_and_both_branches_of_every_stage_and_can_change_each(
    small_backbone: BackboneSpec, batch: Batch
) -> None:
    net = Res16UNet(small_backbone).eval()
    voxels = voxelise(batch, voxel_size_m=0.05, engine="minkowski")
    plain = net(voxels.tensor)
    assert plain.voxels is voxels.tensor.voxels
    seen: dict[tuple[Branch, int], int] = {}

    def look(branch: Branch, stride: int, tensor: SparseTensor) -> SparseTensor:
        assert tensor.voxels.stride == stride
        seen[branch, stride] = tensor.features.shape[1]
        return tensor

    assert torch.equal(net(voxels.tensor, inject=look).features, plain.features)
    assert list(seen)[:4] == [("stem", 1), ("bottleneck", 16), ("up", 8), ("skip", 8)]
    assert (seen["stem", 1], seen["bottleneck", 16]) == (small_backbone.stem_channels, small_backbone.planes[3])
    assert seen == widths_of(small_backbone)
    assert skip_widths(BackboneSpec()) == (128, 64, 32, 32)

    for chosen in seen:

        def shift(
            branch: Branch, stride: int, tensor: SparseTensor, *, chosen: tuple[Branch, int] = chosen
        ) -> SparseTensor:
            return tensor.with_features(tensor.features + 1) if (branch, stride) == chosen else tensor

        assert not torch.allclose(net(voxels.tensor, inject=shift).features, plain.features, atol=1e-6), chosen
