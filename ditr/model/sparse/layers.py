"""The weights of a sparse network, named and shaped as MinkowskiEngine's; what is done with them is the voxels' affair.

A convolution is always followed by a norm, and the two are computed together: ``Convolution`` says what is convolved,
``BatchNorm`` computes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ditr.model.batch_norm import ranks_of
from ditr.model.sparse.voxels import SparseTensor, VoxelSet, require_same_voxels, require_two


@dataclass(frozen=True, kw_only=True)
class Convolved:
    """A convolution that is asked for and not computed yet."""

    of: SparseTensor
    kernel: Tensor
    onto: VoxelSet


class Convolution(nn.Module):
    """Without a bias; ``kernel`` is (size^3, in, out), the first spatial axis fastest, or (in, out) of size 1."""

    def __init__(
        self, in_channels: int, out_channels: int, *, size: Literal[1, 2, 3, 5], transposed: bool = False
    ) -> None:
        super().__init__()
        volume = size**3
        shape = (in_channels, out_channels) if size == 1 else (volume, in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape))
        bound = 1 / math.sqrt((out_channels if transposed else in_channels) * volume)
        nn.init.uniform_(self.kernel, -bound, bound)

    def forward(self, x: SparseTensor, *, onto: VoxelSet | None = None) -> Convolved:
        """On the voxels of ``x`` unless others are named."""
        return Convolved(of=x, kernel=self.kernel, onto=x.voxels if onto is None else onto)


class BatchNorm(nn.Module):
    """Over all voxels of the batch, then what is positive of it unless ``relu`` is false."""

    def __init__(self, channels: int, *, momentum: float, relu: bool = True) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels, momentum=momentum)
        self._relu = relu

    def forward(self, convolved: Convolved, *, shortcut: SparseTensor | None = None) -> SparseTensor:
        """(V, in) -> (W, out); a shortcut is added to what is normalised.

        Raises
        ------
        DitrError: one voxel alone in training; of several ranks the loss becomes NaN.
        """
        x, onto = convolved.of, convolved.onto
        if self.bn.training and ranks_of(self.bn).count == 1:  # else nobody here knows how many all have
            require_two(onto)
        if shortcut is not None:
            require_same_voxels(onto, shortcut.voxels, what="shortcut")
        features = x.voxels.convolve_and_norm(
            x.features,
            convolved.kernel,
            self.bn,
            onto=onto,
            shortcut=None if shortcut is None else shortcut.features,
            relu=self._relu,
        )
        return SparseTensor(features=features, voxels=onto)
