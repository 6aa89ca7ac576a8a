"""What the model is written in: voxels of one stride, and features on them. An engine is what voxels can do.

A batch is voxelised once, by one engine; every coarser set comes from that one and everything of this iteration shares
it. Layers hold weights only, under the same names and in the same shapes whatever the engine, so weights move freely.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ditr.errors import Code, DitrError
from ditr.model.segments import Segments


class VoxelSet(ABC):
    """V voxels of one stride of a batch, in a fixed order of rows. Two tensors share rows only if they share this."""

    stride: int
    """In stride-1 voxels."""

    @abstractmethod
    def __len__(self) -> int:
        """V."""

    @property
    @abstractmethod
    def corners(self) -> Tensor:
        """(V, 4) int32: batch index, then the voxel's corner in units of the stride-1 voxel."""

    @property
    @abstractmethod
    def coarser(self) -> VoxelSet:
        """Those of twice the stride that hold these; the same object each time."""

    @property
    @abstractmethod
    def parents(self) -> Tensor:
        """(V,) int64: the row in ``coarser`` of the voxel that each lies in."""

    @abstractmethod
    def pairs(self, offsets: int, *, onto: VoxelSet) -> int:
        """How many vectors a convolution multiplies by a matrix: voxels here and there that the kernel connects."""

    @abstractmethod
    def convolve_and_norm(
        self,
        features: Tensor,
        kernel: Tensor,
        norm: nn.BatchNorm1d,
        *,
        onto: VoxelSet,
        shortcut: Tensor | None,
        relu: bool,
    ) -> Tensor:
        """(V, in) -> (W, out) on these voxels, on the coarser ones, or on those that these are the coarser ones of.

        ``kernel`` is (offsets, in, out), the first spatial axis fastest: 27 or 125 offsets around each voxel, or 8
        between strides; (in, out) acts on each voxel alone. The sums are normalised over all W voxels, or by the
        running statistics in evaluation; then ``shortcut`` (W, out) is added, and ``relu`` leaves what is positive.
        """


@dataclass(frozen=True, kw_only=True)
class SparseTensor:
    """V rows of C channels at V voxels of one stride."""

    features: Tensor
    """(V, C)"""
    voxels: VoxelSet

    def with_features(self, features: Tensor) -> SparseTensor:
        """(V, any) on the same voxels."""
        return replace(self, features=features)


@dataclass(frozen=True, kw_only=True)
class Voxels:
    """A batch of N points in all, as V stride-1 voxels."""

    tensor: SparseTensor
    """(V, 3): mean normalised colour of each voxel's points."""
    voxel_of_point: Tensor
    """(N,) int64 row of each point's voxel, points in the order of the batch."""
    sizes: tuple[int, ...]
    """Points of each sample; they sum to N."""

    @cached_property
    def of_points(self) -> Segments:
        """The points of each voxel."""
        return Segments(of_row=self.voxel_of_point, count=len(self.tensor.voxels))


def concatenate(first: SparseTensor, second: SparseTensor) -> SparseTensor:
    """Channels of both, which lie on the same voxels."""
    require_same_voxels(first.voxels, second.voxels, what="concatenation")
    return first.with_features(torch.cat([first.features, second.features], dim=1))


def require_same_voxels(ours: VoxelSet, theirs: VoxelSet, *, what: str) -> None:
    """Row-wise arithmetic between two tensors is only right on one set of voxels; anything else is a bug here."""
    if ours is not theirs:
        sets = f"{len(ours)} of stride {ours.stride} and {len(theirs)} of stride {theirs.stride}"
        raise AssertionError(f"{what}: the two tensors lie on different voxels, {sets}")


def require_two(voxels: VoxelSet) -> None:
    """One alone has no variance, and a norm would make it its bias.

    Raises
    ------
    DitrError: the batch has only one voxel of this stride.
    """
    if len(voxels) == 1:
        raise DitrError(
            f"this batch has only one voxel of stride {voxels.stride}, and batch normalisation needs two",
            code=Code.DATASET,
            where="schedule.batch_size",
            fix="put more frames into a batch, or look with `ditr data show` for frames of very few points",
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Voxelise and run the sparse network's forward pass in here, or gradients on the CPU change from run to run.

    With several threads MinkowskiEngine orders the pairs of a kernel map by which thread came first, and a kernel's
    gradient sums in that order. Maps are made once, in the forward pass; whatever comes later may use all threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
