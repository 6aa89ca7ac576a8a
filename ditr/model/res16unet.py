"""Res16UNet on voxels (docs/reference/esam.md, Backbone; State dict). State-dict names are theirs.

2D features enter where ``Inject`` is called and nowhere else: after the stem, at the bottleneck, and on the two
branches of every decoder stage just before they are concatenated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

from torch import nn

from ditr.model.sparse import SparseTensor, batch_norm, concatenate, convolution, relu, up_convolution, with_features
from ditr.spec.models import BOTTLENECK_STRIDE, DECODER_STRIDES, BackboneSpec

Branch = Literal["stem", "bottleneck", "up", "skip"]
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
        self.relu = relu()

        self.conv0p1s1 = convolution(in_channels, stem, kernel=5)
        self.bn0 = batch_norm(stem, momentum=STAGE_MOMENTUM)
        width = stem
        for stage, name in enumerate(_DOWN, start=1):
            self.add_module(name, convolution(width, width, kernel=2, stride=2))
            self.add_module(f"bn{stage}", batch_norm(width, momentum=STAGE_MOMENTUM))
            self.add_module(f"block{stage}", _blocks(width, planes[stage - 1], count=spec.layers[stage - 1]))
            width = planes[stage - 1]
        for stage, (name, skip) in enumerate(zip(_UP, skip_widths(spec), strict=True), start=4):
            self.add_module(name, up_convolution(width, planes[stage]))
            self.add_module(f"bntr{stage}", batch_norm(planes[stage], momentum=STAGE_MOMENTUM))
            self.add_module(f"block{stage + 1}", _blocks(planes[stage] + skip, planes[stage], count=spec.layers[stage]))
            width = planes[stage]

    def forward(self, x: SparseTensor, *, inject: Inject | None = None) -> SparseTensor:
        """(V, in_channels) at stride 1 -> (V, planes[7]) on the same voxels."""
        inject = inject or _nothing
        x = inject("stem", 1, self.relu(self.bn0(self.conv0p1s1(x))))
        skips = [x]
        for stage, name in enumerate(_DOWN, start=1):
            x = self.relu(self._run(f"bn{stage}", self._run(name, x)))
            x = self._run(f"block{stage}", x)
            skips.append(x)
        x = inject("bottleneck", BOTTLENECK_STRIDE, skips.pop())
        for stage, (name, stride) in enumerate(zip(_UP, DECODER_STRIDES, strict=True), start=4):
            up = inject("up", stride, self.relu(self._run(f"bntr{stage}", self._run(name, x))))
            skip = inject("skip", stride, skips.pop())
            x = self._run(f"block{stage + 1}", concatenate(up, skip))
        return x

    def _run(self, name: str, x: SparseTensor) -> SparseTensor:
        return cast(SparseTensor, self.get_submodule(name)(x))


def _nothing(_branch: Branch, _stride: int, tensor: SparseTensor) -> SparseTensor:
    return tensor


def up_widths(spec: BackboneSpec) -> tuple[int, ...]:
    """Channels of the up branch at strides 8, 4, 2, 1."""
    return spec.planes[4:8]


def skip_widths(spec: BackboneSpec) -> tuple[int, ...]:
    """Channels of the encoder's skip at strides 8, 4, 2, 1."""
    return (spec.planes[2], spec.planes[1], spec.planes[0], spec.stem_channels)


_DOWN = ("conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2")
_UP = ("convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2")


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions and a shortcut, which is a 1x1x1 convolution where the channels change."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, kernel=3)
        self.norm1 = batch_norm(channels, momentum=BLOCK_MOMENTUM)
        self.conv2 = convolution(channels, channels, kernel=3)
        self.norm2 = batch_norm(channels, momentum=BLOCK_MOMENTUM)
        self.relu = relu()
        self.downsample = (
            nn.Sequential(convolution(in_channels, channels, kernel=1), batch_norm(channels, momentum=STAGE_MOMENTUM))
            if in_channels != channels
            else None
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Any = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        # Both lie on the same voxels, since every convolution in a block has stride 1.
        return cast(SparseTensor, self.relu(with_features(out, out.F + shortcut.F)))


def _blocks(in_channels: int, channels: int, *, count: int) -> nn.Sequential:
    widths = [in_channels] + [channels] * (count - 1)
    return nn.Sequential(*(BasicBlock(width, channels) for width in widths))
