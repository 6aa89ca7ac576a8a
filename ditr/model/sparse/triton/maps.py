"""Which rows a convolution gathers: maps between the voxels of a batch, made once and without a wait.

Voxels lie in Morton order: the bits of their coordinates interleaved, after the batch index. A voxel's parent is its
key without the last three bits, neighbours in space are near in memory, and the order fixes that of all sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ditr.model.sparse.triton import kernels
from ditr.model.sparse.triton.launch import kernel

PADDING = 128
"""Columns of a map are padded to a multiple; no tile may have more rows."""
NEAR = 8192
"""Columns are sorted by their offsets within blocks of so many rows, so that what a tile gathers stays near."""
STEM_OFFSETS = 128
"""125 and three that no voxel has."""

_BLOCK = 256
_PAIR_BLOCK = 1024
_AXIS_BITS = 16
_FIRST_AXIS = sum(1 << 3 * bit for bit in range(_AXIS_BITS))
_SPREADING = (
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)

MAX_EXTENT = (1 << _AXIS_BITS) - 48
"""Of a batch along an axis, in stride-1 voxels: the key's bits, less what alignment to stride 16 and a border take."""


@dataclass(frozen=True, kw_only=True)
class GatherMap:
    """For each of n rows that come out, the row that goes in at each of K offsets; columns padded to L."""

    neighbours: Tensor
    """(K, L) int32; -1 for none."""
    present: Tensor
    """(L,) int32: a bit for each offset that the column has."""
    rows: Tensor
    """(L,) int32: the row that comes out of each column."""
    count: int
    """n"""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """All (row in, row out) of a convolution, offset by offset; for the gradient of its weights."""

    sources: Tensor
    """int32; room for as many as there can be."""
    targets: Tensor
    starts: Tensor
    """(K + 1,) int32: where those of each offset begin."""


@dataclass(frozen=True, kw_only=True)
class ConvolutionMap:
    """What a convolution gathers, on its way there and for the gradient on its way back."""

    forward: GatherMap
    backward: GatherMap
    mirrored: bool
    """On the way back, offset k is where K - 1 - k was."""
    pairs: Pairs


def keys_of(corners: Tensor, *, batch_index: Tensor) -> Tensor:
    """(N,) int64 of (N, 3) int64 corners, each between a stride of 16 and ``MAX_EXTENT`` more than two such."""
    x, y, z = _spread(corners).unbind(1)
    return batch_index << 3 * _AXIS_BITS | x | y << 1 | z << 2


def corners_of(keys: Tensor, *, level: int) -> tuple[Tensor, Tensor]:
    """(V,) batch indices and (V, 3) corners, both int64, in units of the level's stride."""
    bits = _AXIS_BITS - level
    axes = [sum((keys >> 3 * bit + axis & 1) << bit for bit in range(bits)) for axis in range(3)]
    return keys >> 3 * bits, torch.stack([keys.new_zeros(len(keys)) + axis for axis in axes], dim=1)


def distinct(keys: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` different ones of (N,) sorted keys, and (N,) int64 which of them each is."""
    rows = torch.nn.functional.pad((keys[1:] != keys[:-1]).cumsum(0), (1, 0))
    # Equal keys write the same number to the same place.
    return keys.new_empty(count).index_copy(0, rows, keys), rows


def around(keys: Tensor, *, level: int, size: int) -> Tensor:
    """(size^3, or 128 for size 5; L) int32: the row at each offset around each voxel, the first axis fastest."""
    count, offsets = len(keys), size**3
    neighbours = keys.new_full((offsets if size == 3 else STEM_OFFSETS, _padded(count)), -1, dtype=torch.int32)
    neighbours[offsets // 2, :count] = torch.arange(count, dtype=torch.int32, device=keys.device)
    kernel(kernels.find_neighbours, K=offsets, BLOCK=_BLOCK)(
        (_blocks(count, _BLOCK), offsets // 2, 1),
        keys,
        _half_of_offsets(size, keys.device),
        neighbours,
        count,
        neighbours.shape[1],
        _FIRST_AXIS >> 3 * level,
        count.bit_length(),
    )
    return neighbours


def in_order(neighbours: Tensor, *, count: int) -> GatherMap:
    """Columns as they are; which offsets they have is not said: all are visited."""
    rows = torch.arange(neighbours.shape[1], dtype=torch.int32, device=neighbours.device)
    return GatherMap(neighbours=neighbours, present=rows, rows=rows, count=count)


def sorted_by_offsets(neighbours: Tensor, *, count: int) -> GatherMap:
    """Rows with the same offsets side by side: a tile visits only the offsets that one of its rows has."""
    offsets, columns = neighbours.shape
    grid, ld = (_blocks(columns, _BLOCK), 1, 1), columns
    keys = torch.empty(columns, dtype=torch.int64, device=neighbours.device)
    kernel(kernels.column_keys, K=offsets, BLOCK=_BLOCK, NEAR=NEAR)(grid, neighbours, keys, count, ld)
    keys, order = keys.sort(stable=True)
    arranged, present = torch.empty_like(neighbours), neighbours.new_empty(columns)
    rows = torch.empty_like(present)
    kernel(kernels.arrange_columns, K=offsets, BLOCK=_BLOCK)(
        grid, neighbours, order, keys, arranged, present, rows, count, ld
    )
    return GatherMap(neighbours=arranged, present=present, rows=rows, count=count)


def pairs_of(gather: GatherMap, *, most: int) -> Pairs:
    """Of a map that has at most so many."""
    offsets, columns = gather.neighbours.shape
    blocks = _blocks(columns, _PAIR_BLOCK)
    counts = gather.neighbours.new_empty(offsets, blocks)
    grid = (blocks, offsets, 1)
    kernel(kernels.count_pairs, BLOCK=_PAIR_BLOCK)(grid, gather.neighbours, counts, blocks, columns)
    ends = counts.flatten().cumsum(0)
    sources, targets = counts.new_empty(most), counts.new_empty(most)
    kernel(kernels.list_pairs, BLOCK=_PAIR_BLOCK)(
        grid, gather.neighbours, gather.rows, ends, sources, targets, blocks, columns
    )
    starts = torch.nn.functional.pad(ends[blocks - 1 :: blocks], (1, 0)).int()
    return Pairs(sources=sources, targets=targets, starts=starts)


def within(keys: Tensor, *, level: int) -> ConvolutionMap:
    """3 x 3 x 3 on the voxels of one stride."""
    count = len(keys)
    gather = sorted_by_offsets(around(keys, level=level, size=3), count=count)
    return ConvolutionMap(forward=gather, backward=gather, mirrored=True, pairs=pairs_of(gather, most=27 * count))


def alone(count: int, device: torch.device) -> ConvolutionMap:
    """1 x 1 x 1."""
    columns = torch.arange(_padded(count), dtype=torch.int32, device=device)
    live = columns < count
    rows = torch.where(live, columns, 0)
    gather = GatherMap(neighbours=torch.where(live, columns, -1)[None], present=live.int(), rows=rows, count=count)
    starts = torch.arange(0, 2 * count, count, dtype=torch.int32, device=device)
    pairs = Pairs(sources=columns, targets=columns, starts=starts)
    return ConvolutionMap(forward=gather, backward=gather, mirrored=False, pairs=pairs)


def between(keys: Tensor, parents: Tensor, *, coarse: int) -> tuple[ConvolutionMap, ConvolutionMap]:
    """2 x 2 x 2 from voxels to the ``coarse`` ones of twice the stride, and back."""
    count, slots = len(keys), keys & 7
    children = torch.full((8, _padded(coarse)), -1, dtype=torch.int32, device=keys.device)
    children[slots, parents] = torch.arange(count, dtype=torch.int32, device=keys.device)
    slot, order = slots.sort(stable=True)
    fine, into = order.int(), parents.index_select(0, order).int()
    columns = torch.arange(count, device=keys.device)
    of_parent = torch.full((8, _padded(count)), -1, dtype=torch.int32, device=keys.device)
    of_parent[slot, columns] = into
    padding = (0, _padded(count) - count)
    up = GatherMap(
        neighbours=of_parent,
        present=torch.nn.functional.pad((1 << slot).int(), padding),
        rows=torch.nn.functional.pad(fine, padding),
        count=count,
    )
    down = sorted_by_offsets(children, count=coarse)
    starts = torch.searchsorted(slot, torch.arange(9, device=keys.device)).int()
    return (
        ConvolutionMap(
            forward=down, backward=up, mirrored=False, pairs=Pairs(sources=fine, targets=into, starts=starts)
        ),
        ConvolutionMap(
            forward=up, backward=down, mirrored=False, pairs=Pairs(sources=into, targets=fine, starts=starts)
        ),
    )


def _spread(v: Tensor) -> Tensor:
    """Two zero bits after each of 16."""
    for shift, mask in _SPREADING:
        v = (v | v << shift) & mask
    return v


def _half_of_offsets(size: int, device: torch.device) -> Tensor:
    """(size^3 // 2,) keys of the offsets before the centre, the first axis fastest."""
    along = torch.arange(size, device=device) - size // 2
    offsets = torch.stack(torch.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3).flip(1)
    x, y, z = _spread(offsets[: size**3 // 2] & (1 << _AXIS_BITS) - 1).unbind(1)
    return x | y << 1 | z << 2


def _padded(count: int) -> int:
    return _blocks(count, PADDING) * PADDING


def _blocks(count: int, size: int) -> int:
    return -(-count // size)
