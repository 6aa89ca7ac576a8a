"""Sparse convolution and the Res16UNet in plain torch (docs/reference/esam.md, Voxels; Backbone; Kernels).

Nothing is shared with ditr.model and nothing with MinkowskiEngine: voxels are rows of a sorted table of coordinates, a
convolution gathers each neighbour's row by binary search and multiplies it with that neighbour's kernel matrix, and
torch differentiates it all. Slow, and short enough to be read beside the tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

EPS = 1e-5
REACH = 1 << 14  # coordinates lie within +-REACH


@dataclass(frozen=True)
class Voxels:
    """V voxels of one stride, rows in ascending order of (batch, x, y, z)."""

    corners: Tensor  # (V, 4) int64: batch index, corner in units of the stride-1 voxel
    stride: int

    def find(self, corners: Tensor) -> tuple[Tensor, Tensor]:
        """(M, 4) -> rows of those that exist, and which of the M they are."""
        mine, wanted = _keys(self.corners), _keys(corners)
        row = torch.searchsorted(mine, wanted).clamp(max=len(mine) - 1)
        present = (mine[row] == wanted).nonzero().squeeze(1)
        return row[present], present

    def coarser(self) -> Voxels:
        """Twice the stride: corners rounded down to its multiples, below zero too."""
        stride = 2 * self.stride
        corners = self.corners.clone()
        corners[:, 1:] = torch.div(corners[:, 1:], stride, rounding_mode="floor") * stride
        return Voxels(torch.unique(corners, dim=0), stride)


def _keys(corners: Tensor) -> Tensor:
    batch, x, y, z = (corners + torch.tensor([0, REACH, REACH, REACH])).unbind(1)
    return ((batch * 2 * REACH + x) * 2 * REACH + y) * 2 * REACH + z


def voxelise(points: list[Tensor], features: list[Tensor], *, voxel_size: float) -> tuple[Voxels, Tensor, Tensor]:
    """Of the samples' (N, 3) points and (N, C) features: the voxels, their mean features, the voxel of each point."""
    corners = [torch.floor(xyz / voxel_size).long() for xyz in points]
    indexed = [torch.cat([torch.full((len(c), 1), index), c], dim=1) for index, c in enumerate(corners)]
    unique, inverse, counts = torch.unique(torch.cat(indexed), dim=0, return_inverse=True, return_counts=True)
    every = torch.cat(features)
    total = torch.zeros(len(unique), every.shape[1], dtype=every.dtype).index_add(0, inverse, every)
    return Voxels(unique, 1), total / counts[:, None], inverse


def offsets(size: int) -> list[tuple[int, int, int]]:
    """Neighbours in the order of the kernel's matrices, x fastest: around the voxel if odd, from its corner on if 2."""
    axis = range(-(size // 2), size // 2 + 1) if size % 2 else range(size)
    return [(x, y, z) for z, y, x in product(axis, axis, axis)]


def convolve(features: Tensor, kernel: Tensor, *, source: Voxels, target: Voxels) -> Tensor:
    """Each target sums its source neighbours, which lie multiples of the source's stride away."""
    out = torch.zeros(len(target.corners), kernel.shape[2], dtype=features.dtype)
    for matrix, offset in zip(kernel, offsets(round(len(kernel) ** (1 / 3))), strict=True):
        step = torch.tensor([0, *offset]) * source.stride
        source_rows, target_rows = source.find(target.corners + step)
        out = out.index_add(0, target_rows, features[source_rows] @ matrix)
    return out


def convolve_up(features: Tensor, kernel: Tensor, *, source: Voxels, target: Voxels) -> Tensor:
    """The transpose of a k=2, s=2 convolution: each source spreads to the children that exist."""
    out = torch.zeros(len(target.corners), kernel.shape[2], dtype=features.dtype)
    for matrix, offset in zip(kernel, offsets(2), strict=True):
        step = torch.tensor([0, *offset]) * target.stride
        target_rows, source_rows = target.find(source.corners + step)
        out = out.index_add(0, target_rows, features[source_rows] @ matrix)
    return out


@dataclass
class Res16UNet:
    """The network (docs/reference/esam.md, Backbone) as a function of its state dict, whose entries say the rest.

    In training, norms use the statistics of the batch, and ``running`` collects what the running ones become.
    """

    state: dict[str, Tensor]
    training: bool
    running: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, x: Tensor, voxels: Voxels) -> Tensor:
        levels = [voxels]
        for _ in range(4):
            levels.append(levels[-1].coarser())
        x = self._norm("bn0", convolve(x, self._kernel("conv0p1s1"), source=voxels, target=voxels)).relu()
        skips = [x]
        for stage, name in enumerate(("conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2"), start=1):
            x = convolve(x, self._kernel(name), source=levels[stage - 1], target=levels[stage])
            x = self._blocks(f"block{stage}", self._norm(f"bn{stage}", x).relu(), levels[stage])
            skips.append(x)
        for stage, name in enumerate(("convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2"), start=4):
            level = 7 - stage
            x = convolve_up(x, self._kernel(name), source=levels[level + 1], target=levels[level])
            x = torch.cat([self._norm(f"bntr{stage}", x).relu(), skips[level]], dim=1)
            x = self._blocks(f"block{stage + 1}", x, levels[level])
        return x

    def _kernel(self, name: str) -> Tensor:
        return self.state[f"{name}.kernel"]

    def _blocks(self, name: str, x: Tensor, voxels: Voxels) -> Tensor:
        index = 0
        while f"{name}.{index}.conv1.kernel" in self.state:
            x = self._block(f"{name}.{index}", x, voxels)
            index += 1
        return x

    def _block(self, name: str, x: Tensor, voxels: Voxels) -> Tensor:
        out = convolve(x, self._kernel(f"{name}.conv1"), source=voxels, target=voxels)
        out = self._norm(f"{name}.norm1", out).relu()
        out = convolve(out, self._kernel(f"{name}.conv2"), source=voxels, target=voxels)
        out = self._norm(f"{name}.norm2", out)
        if f"{name}.downsample.0.kernel" in self.state:
            x = self._norm(f"{name}.downsample.1", x @ self._kernel(f"{name}.downsample.0"))
        return (out + x).relu()

    def _norm(self, name: str, x: Tensor) -> Tensor:
        prefix = f"{name}.bn"
        mean, variance = self.state[f"{prefix}.running_mean"], self.state[f"{prefix}.running_var"]
        if self.training:
            momentum = 0.1 if name.endswith((".norm1", ".norm2")) else 0.02
            unbiased = x.var(dim=0, unbiased=True)
            self.running[f"{prefix}.running_mean"] = ((1 - momentum) * mean + momentum * x.mean(dim=0)).detach()
            self.running[f"{prefix}.running_var"] = ((1 - momentum) * variance + momentum * unbiased).detach()
            mean, variance = x.mean(dim=0), x.var(dim=0, unbiased=False)
        return (x - mean) / (variance + EPS).sqrt() * self.state[f"{prefix}.weight"] + self.state[f"{prefix}.bias"]
