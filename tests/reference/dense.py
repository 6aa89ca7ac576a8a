"""A sparse convolution as torch's dense one, on volumes that are zero where no voxel is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import conv3d, conv_transpose3d


@dataclass(frozen=True)
class Places:
    """Where V voxels of one stride lie."""

    corners: Tensor
    """(V, 4) int64: batch index, then the corner in stride-1 voxels."""
    stride: int


def convolve(values: Tensor, kernel: Tensor, *, at: Places, onto: Places) -> Tensor:
    """(V, in) -> (W, out); the kernel is (offsets, in, out), the first spatial axis fastest, or (in, out)."""
    if kernel.dim() == 2:
        return values @ kernel
    unit = max(at.stride, onto.stride)  # volumes begin and end at a multiple, so that no coarser voxel is cut
    low, high = (at.corners[:, 1:].amin(0), at.corners[:, 1:].amax(0))
    low = low.div(unit, rounding_mode="floor") * unit
    extent = (high - low + unit) // unit * unit
    shape = [int(at.corners[:, 0].max()) + 1, *(extent // at.stride).tolist(), values.shape[1]]
    volume = values.new_zeros(shape).index_put(_index(at, low), values).permute(0, 4, 1, 2, 3)
    size = round(len(kernel) ** (1 / 3))
    weight = kernel.reshape(size, size, size, *kernel.shape[1:])
    if onto.stride < at.stride:
        out = conv_transpose3d(volume, weight.permute(3, 4, 2, 1, 0), stride=2)
    else:
        padding = size // 2 if onto.stride == at.stride else 0
        out = conv3d(volume, weight.permute(4, 3, 2, 1, 0), stride=onto.stride // at.stride, padding=padding)
    return out.permute(0, 2, 3, 4, 1)[_index(onto, low)]


def _index(places: Places, low: Tensor) -> tuple[Tensor, ...]:
    x, y, z = ((places.corners[:, 1:] - low) // places.stride).T
    return places.corners[:, 0], x, y, z
