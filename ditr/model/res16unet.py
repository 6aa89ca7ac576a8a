"""Res16UNet on voxels (docs/reference/esam.md, Backbone; State dict). State-dict names are theirs.

2D features enter where ``Inject`` is called and nowhere else: after the stem, at the bottleneck, and on the two
branches of every decoder stage just before they are concatenated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import nn

from ditr.model.sparse import BatchNorm, Convolution, SparseTensor, VoxelSet, concatenate
from ditr.spec.fusion_part import BOTTLENECK_STRIDE, DECODER_STRIDES, Branch, Place
from ditr.spec.models import BackboneSpec

Inject = Callable[[Branch, int, SparseTensor], SparseTensor]
"""(branch, stride, what is there) -> what goes on, on the same voxels and of the same channels."""

STAGE_MOMENTUM = 0.02
"""Of the norms after strided convolutions and in shortcuts; the reference does not pass it on to the blocks."""
BLOCK_MOMENTUM = 0.1


class Res16UNet(nn.Module):
    """Four strided encoder stages to stride 16, four decoder stages back to stride 1."""

    def __init__(self, spec: BackboneSpec, *, in_channels: int = 3) -> None:
        super().__init__()
        planes, stem = spec.planes, spec.stem_channels
        self.out_channels = planes[7]

        self.conv0p1s1 = Convolution(in_channels, stem, size=5)
        self.bn0 = BatchNorm(stem, momentum=STAGE_MOMENTUM)
        width = stem
        for stage, name in enumerate(_DOWN, start=1):
            self.add_module(name, Convolution(width, width, size=2))
            self.add_module(f"bn{stage}", BatchNorm(width, momentum=STAGE_MOMENTUM))
            self.add_module(f"block{stage}", _blocks(width, planes[stage - 1], count=spec.layers[stage - 1]))
            width = planes[stage - 1]
        for stage, (name, skip) in enumerate(zip(_UP, skip_widths(spec), strict=True), start=4):
            self.add_module(name, Convolution(width, planes[stage], size=2, transposed=True))
            self.add_module(f"bntr{stage}", BatchNorm(planes[stage], momentum=STAGE_MOMENTUM))
            self.add_module(f"block{stage + 1}", _blocks(planes[stage] + skip, planes[stage], count=spec.layers[stage]))
            width = planes[stage]

    def forward(self, x: SparseTensor, *, inject: Inject | None = None) -> SparseTensor:
        """(V, in_channels) at stride 1 -> (V, planes[7]) on the same voxels."""
        inject = inject or _nothing
        x = inject("stem", 1, self.bn0(self.conv0p1s1(x)))
        skips = [x]
        for stage, name in enumerate(_DOWN, start=1):
            x = self._between(name, f"bn{stage}", x, onto=x.voxels.coarser)
            x = self._run(f"block{stage}", x)
            skips.append(x)
        x = inject("bottleneck", BOTTLENECK_STRIDE, skips.pop())
        for stage, (name, stride) in enumerate(zip(_UP, DECODER_STRIDES, strict=True), start=4):
            skip = skips.pop()
            up = inject("up", stride, self._between(name, f"bntr{stage}", x, onto=skip.voxels))
            skip = inject("skip", stride, skip)
            x = self._run(f"block{stage + 1}", concatenate(up, skip))
        return x

    def _between(self, convolution: str, norm: str, x: SparseTensor, *, onto: VoxelSet) -> SparseTensor:
        """From one stride to the next."""
        convolved = self.get_submodule(convolution)(x, onto=onto)
        return cast(SparseTensor, self.get_submodule(norm)(convolved))

    def _run(self, name: str, x: SparseTensor) -> SparseTensor:
        return cast(SparseTensor, self.get_submodule(name)(x))


def _nothing(_branch: Branch, _stride: int, tensor: SparseTensor) -> SparseTensor:
    return tensor


def widths_of(spec: BackboneSpec) -> dict[Place, int]:
    """Channels at every place where 2D features may enter, in the order of the forward pass."""
    widths: dict[Place, int] = {("stem", 1): spec.stem_channels, ("bottleneck", BOTTLENECK_STRIDE): spec.planes[3]}
    for stride, up, skip in zip(DECODER_STRIDES, spec.planes[4:8], skip_widths(spec), strict=True):
        widths |= {("up", stride): up, ("skip", stride): skip}
    return widths


def skip_widths(spec: BackboneSpec) -> tuple[int, ...]:
    """Channels of the encoder's skip at strides 8, 4, 2, 1."""
    return (spec.planes[2], spec.planes[1], spec.planes[0], spec.stem_channels)


_DOWN = ("conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2")
_UP = ("convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2")


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions and a shortcut, which is a 1x1x1 convolution where the channels change."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = Convolution(in_channels, channels, size=3)
        self.norm1 = BatchNorm(channels, momentum=BLOCK_MOMENTUM)
        self.conv2 = Convolution(channels, channels, size=3)
        self.norm2 = BatchNorm(channels, momentum=BLOCK_MOMENTUM)
        self.downsample = (
            nn.Sequential(
                Convolution(in_channels, channels, size=1), BatchNorm(channels, momentum=STAGE_MOMENTUM, relu=False)
            )
            if in_channels != channels
            else None
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        hidden = self.norm1(self.conv1(x))
        return cast(SparseTensor, self.norm2(self.conv2(hidden), shortcut=shortcut))


def _blocks(in_channels: int, channels: int, *, count: int) -> nn.Sequential:
    widths = [in_channels] + [channels] * (count - 1)
    return nn.Sequential(*(BasicBlock(width, channels) for width in widths))
