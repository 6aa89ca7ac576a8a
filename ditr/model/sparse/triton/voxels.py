"""Voxels of our own engine: every stride's and every map of a batch, made when it is voxelised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ditr.data.batch import Batch
from ditr.errors import Code, DitrError
from ditr.model.sparse.triton import maps
from ditr.model.sparse.triton.convolution import convolve_and_norm
from ditr.model.sparse.voxels import SparseTensor, Voxels, VoxelSet
from ditr.spec.models import BOTTLENECK_STRIDE

LEVELS = BOTTLENECK_STRIDE.bit_length()
"""Strides 1, 2, 4, 8, 16."""


def voxelise(batch: Batch, *, voxel_size_m: float) -> Voxels:
    """Floor the coordinates to voxels and average the colours in each (docs/reference/esam.md, Voxels).

    Waits for the device once, for how many voxels there are.

    Raises
    ------
    DitrError: the points are too far apart for a voxel's key.
    """
    sizes = tuple(len(sample.xyz) for sample in batch)
    corners = torch.floor(torch.cat([sample.xyz for sample in batch]) / voxel_size_m).long()
    index = torch.cat([corners.new_full((size,), number) for number, size in enumerate(sizes)])
    lowest, highest = corners.amin(0), corners.amax(0)
    origin = (lowest.div(BOTTLENECK_STRIDE, rounding_mode="floor") - 1) * BOTTLENECK_STRIDE
    keys, order = maps.keys_of(corners - origin, batch_index=index).sort(stable=True)
    counts = [1 + (keys[1:] >> 3 * level != keys[:-1] >> 3 * level).sum() for level in range(LEVELS)]
    *counted, extent = torch.stack([*counts, (highest - lowest).amax()]).tolist()
    if extent > maps.MAX_EXTENT:
        raise DitrError(
            f"the points of a batch lie {extent * voxel_size_m:,.0f} m apart, {extent:,} voxels along an axis; the "
            f"triton engine has room for {maps.MAX_EXTENT:,}",
            code=Code.DATASET,
            where=", ".join(sample.frame_id for sample in batch),
            fix="look with `ditr data show` for points that lie outside the scene, or take execution.engine: minkowski",
        )
    finest, row = maps.distinct(keys, count=counted[0])
    colours = torch.cat([sample.colour for sample in batch]).index_select(0, order)
    ends = torch.searchsorted(row, torch.arange(counted[0] + 1, device=row.device))
    means = torch.segment_reduce(colours, "mean", offsets=ends, axis=0, unsafe=True)
    return Voxels(
        tensor=SparseTensor(features=means, voxels=TritonVoxels(finest, counts=counted, stride=1, origin=origin)),
        voxel_of_point=torch.empty_like(row).index_copy(0, order, row),
        sizes=sizes,
    )


class TritonVoxels(VoxelSet):
    """One stride's, in Morton order; it makes the coarser ones."""

    def __init__(self, keys: Tensor, *, counts: Sequence[int], stride: int, origin: Tensor) -> None:
        """``keys`` (V,) of this stride, sorted; ``counts`` of the voxels here and at each coarser stride to make."""
        self.stride = stride
        self._keys, self._origin = keys, origin
        level = stride.bit_length() - 1
        self._within = maps.within(keys, level=level)
        self._alone = maps.alone(counts[0], keys.device)
        self._stem = maps.in_order(maps.around(keys, level=level, size=5), count=counts[0]) if stride == 1 else None
        self._coarser: TritonVoxels | None = None
        if len(counts) > 1:
            coarse, self._parents = maps.distinct(keys >> 3, count=counts[1])
            self._down, self._up = maps.between(keys, self._parents, coarse=counts[1])
            self._coarser = TritonVoxels(coarse, counts=counts[1:], stride=2 * stride, origin=origin)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def corners(self) -> Tensor:
        index, corners = maps.corners_of(self._keys, level=self.stride.bit_length() - 1)
        return torch.cat([index[:, None], corners * self.stride + self._origin], dim=1).int()

    @property
    def coarser(self) -> VoxelSet:
        return self._next()

    @property
    def parents(self) -> Tensor:
        self._next()
        return self._parents

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
        gather = self._map(len(kernel) if kernel.dim() == 3 else 1, onto=onto)
        return convolve_and_norm(features, kernel, norm, gather=gather, shortcut=shortcut, relu=relu)

    def pairs(self, offsets: int, *, onto: VoxelSet) -> int:
        found = self._map(offsets, onto=onto)
        gather = found.forward if isinstance(found, maps.ConvolutionMap) else found
        return int((gather.neighbours >= 0).sum())

    def _map(self, offsets: int, *, onto: VoxelSet) -> maps.ConvolutionMap | maps.GatherMap:
        assert isinstance(onto, TritonVoxels), f"{type(onto).__name__} are another engine's"
        found = {
            (1, self is onto): self._alone,
            (27, self is onto): self._within,
            (125, self is onto): self._stem,
            (8, self._coarser is onto): self._down if self._coarser else None,
            (8, onto._coarser is self): onto._up if onto._coarser else None,
        }.get((offsets, True))
        assert found is not None, f"no kernel of {offsets} offsets leads from stride {self.stride} to {onto.stride}"
        return found

    def _next(self) -> TritonVoxels:
        assert self._coarser is not None, f"stride {self.stride} is the coarsest that is made"
        return self._coarser
