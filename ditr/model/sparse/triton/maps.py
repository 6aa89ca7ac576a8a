"""Which rows a convolution gathers: maps between the voxels of a batch, made once and without a wait.

Voxels lie in Morton order: the bits of their coordinates interleaved, after the batch index. A voxel's parent is its
key without the last three bits, neighbours in space are near in memory, and the order fixes that of all sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ditr.model.sparse.triton import map_kernels
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
    """For each of n rows that come out, the row that goes in at each of K offsets; columns padded to L.

    There may be room for more than n rows: nothing is read of what lies behind.
    """

    neighbours: Tensor
    """(K, L) int32; -1 for none."""
    present: Tensor
    """(L,) int32: a bit for each offset that the column has."""
    rows: Tensor
    """(L,) int32: the row that comes out of each column."""
    count: Tensor
    """(1,) int32: n."""
    room: int
    """For so many rows that come out."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """All (row in, row out) of a convolution, offset by offset; for the gradient of its weights."""

    sources: Tensor
    """int32; there may be room for more."""
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


class StrideMaps:
    """The maps of one stride, as tensors with names: what lies in them is made once a batch, or copied from another's.

    Parameters
    ----------
    room: for so many voxels.
    coarse: for so many of twice the stride; None at the coarsest.
    stem: whether 5 x 5 x 5 is wanted.
    """

    def __init__(self, room: int, *, coarse: StrideMaps | None, stem: bool, device: torch.device) -> None:
        self.room, self.coarse = room, coarse
        columns = padded(room)
        shapes: dict[str, tuple[int, ...]] = {
            "count": (1,),
            "alone_present": (columns,),
            "alone_rows": (columns,),
            "alone_starts": (2,),
            "within": (27, columns),
            "within_present": (columns,),
            "within_rows": (columns,),
            "within_sources": (27 * room,),
            "within_targets": (27 * room,),
            "within_starts": (28,),
        }
        if stem:
            shapes |= {"stem": (STEM_OFFSETS, columns)}
        if coarse is not None:
            shapes |= {
                "up": (8, columns),
                "up_present": (columns,),
                "up_rows": (columns,),
                "down": (8, padded(coarse.room)),
                "down_present": (padded(coarse.room),),
                "down_rows": (padded(coarse.room),),
                "fine": (room,),
                "coarse": (room,),
                "starts": (9,),
            }
        self.tensors = _in_one_piece(shapes, device=device)

    def copy_(self, other: StrideMaps) -> None:
        """Of another's, which needs no more room."""
        for name, tensor in other.tensors.items():
            self.tensors[name].narrow(-1, 0, tensor.shape[-1]).copy_(tensor)

    @property
    def alone(self) -> ConvolutionMap:
        """1 x 1 x 1."""
        t = self.tensors
        rows = t["alone_rows"]
        gather = self._gather(rows[None], t["alone_present"], rows)
        pairs = Pairs(sources=rows, targets=rows, starts=t["alone_starts"])
        return ConvolutionMap(forward=gather, backward=gather, mirrored=False, pairs=pairs)

    @property
    def within(self) -> ConvolutionMap:
        """3 x 3 x 3."""
        t = self.tensors
        gather = self._gather(t["within"], t["within_present"], t["within_rows"])
        pairs = Pairs(sources=t["within_sources"], targets=t["within_targets"], starts=t["within_starts"])
        return ConvolutionMap(forward=gather, backward=gather, mirrored=True, pairs=pairs)

    @property
    def stem(self) -> GatherMap:
        """5 x 5 x 5; which offsets a column has is not said: all are visited."""
        t = self.tensors
        return self._gather(t["stem"], t["alone_rows"], t["alone_rows"])

    @property
    def down(self) -> ConvolutionMap:
        """2 x 2 x 2 to twice the stride."""
        pairs = Pairs(sources=self.tensors["fine"], targets=self.tensors["coarse"], starts=self.tensors["starts"])
        return ConvolutionMap(forward=self._to_coarse, backward=self._to_fine, mirrored=False, pairs=pairs)

    @property
    def up(self) -> ConvolutionMap:
        """2 x 2 x 2 from twice the stride."""
        pairs = Pairs(sources=self.tensors["coarse"], targets=self.tensors["fine"], starts=self.tensors["starts"])
        return ConvolutionMap(forward=self._to_fine, backward=self._to_coarse, mirrored=False, pairs=pairs)

    @property
    def _to_fine(self) -> GatherMap:
        return self._gather(self.tensors["up"], self.tensors["up_present"], self.tensors["up_rows"])

    @property
    def _to_coarse(self) -> GatherMap:
        assert self.coarse is not None, "there is no coarser stride"
        t = self.tensors
        return self.coarse._gather(t["down"], t["down_present"], t["down_rows"])

    def _gather(self, neighbours: Tensor, present: Tensor, rows: Tensor) -> GatherMap:
        count = self.tensors["count"]
        return GatherMap(neighbours=neighbours, present=present, rows=rows, count=count, room=self.room)


def fill(maps: StrideMaps, keys: Tensor, *, level: int, parents: Tensor | None) -> None:
    """With the maps of voxels that need the whole room; ``parents`` (V,) are rows of twice the stride."""
    t, room = maps.tensors, len(keys)
    columns = len(t["alone_rows"])
    grid = (_blocks(columns, _BLOCK), 1, 1)
    kernel(map_kernels.place_alone, BLOCK=_BLOCK)(
        grid, t["count"], t["alone_present"], t["alone_rows"], t["alone_starts"], room, columns
    )
    _sort_columns(
        _neighbours(keys, torch.full_like(t["within"], -1), size=3, level=level),
        t["within"],
        t["within_present"],
        t["within_rows"],
        room=room,
    )
    _list_pairs(t["within"], t["within_rows"], t["within_sources"], t["within_targets"], t["within_starts"])
    if "stem" in t:
        _neighbours(keys, t["stem"].fill_(-1), size=5, level=level)
    if parents is not None and maps.coarse is not None:
        children = torch.full_like(t["down"], -1)
        kernel(map_kernels.place_children, BLOCK=_BLOCK)(grid, keys, parents, children, room, children.shape[1])
        _sort_columns(children, t["down"], t["down_present"], t["down_rows"], room=maps.coarse.room)
        _list_pairs(t["down"], t["down_rows"], t["fine"], t["coarse"], t["starts"])
        kernel(map_kernels.place_parents, BLOCK=_BLOCK)(
            grid, keys, t["fine"], t["coarse"], t["up"], t["up_present"], t["up_rows"], room, columns
        )


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
    found = keys.new_empty(count)
    kernel(map_kernels.keep_distinct, BLOCK=_BLOCK)((_blocks(len(keys), _BLOCK), 1, 1), keys, rows, found, len(keys))
    return found, rows


def _neighbours(keys: Tensor, neighbours: Tensor, *, size: int, level: int) -> Tensor:
    """The row at each of size^3 offsets around each voxel, the first axis fastest; others stay as they are."""
    count, offsets = len(keys), size**3
    kernel(map_kernels.find_neighbours, K=offsets, BLOCK=_BLOCK)(
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


def _sort_columns(found: Tensor, neighbours: Tensor, present: Tensor, rows: Tensor, *, room: int) -> None:
    """Rows with the same offsets side by side: a tile visits only the offsets that one of its rows has."""
    offsets, columns = found.shape
    grid = (_blocks(columns, _BLOCK), 1, 1)
    keys = torch.empty(columns, dtype=torch.int64, device=found.device)
    kernel(map_kernels.column_keys, K=offsets, BLOCK=_BLOCK, NEAR=NEAR)(grid, found, keys, room, columns)
    keys, order = keys.sort(stable=True)
    kernel(map_kernels.arrange_columns, K=offsets, BLOCK=_BLOCK)(
        grid, found, order, keys, neighbours, present, rows, room, columns
    )


def _list_pairs(neighbours: Tensor, rows: Tensor, sources: Tensor, targets: Tensor, starts: Tensor) -> None:
    offsets, columns = neighbours.shape
    blocks = _blocks(columns, _PAIR_BLOCK)
    counts, grid = neighbours.new_empty(offsets * blocks), (blocks, offsets, 1)
    kernel(map_kernels.count_pairs, BLOCK=_PAIR_BLOCK)(grid, neighbours, counts, blocks, columns)
    kernel(map_kernels.list_pairs, BLOCK=_PAIR_BLOCK)(
        grid, neighbours, rows, counts.cumsum(0), sources, targets, starts, blocks, columns
    )


def _in_one_piece(shapes: dict[str, tuple[int, ...]], *, device: torch.device) -> dict[str, Tensor]:
    """int32 tensors, each at a multiple of 16 bytes."""
    sizes = [-(-math.prod(shape) // 4) * 4 for shape in shapes.values()]
    pieces = torch.empty(sum(sizes), dtype=torch.int32, device=device).split(sizes)  # type: ignore[no-untyped-call]
    return {
        name: piece.view(shape) if len(piece) == math.prod(shape) else piece[: math.prod(shape)]
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


@cache
def _half_of_offsets(size: int, device: torch.device) -> Tensor:
    """(size^3 // 2,) keys of the offsets before the centre, the first axis fastest."""
    along = torch.arange(size, device=device) - size // 2
    offsets = torch.stack(torch.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3).flip(1)
    x, y, z = _spread(offsets[: size**3 // 2] & (1 << _AXIS_BITS) - 1).unbind(1)
    return x | y << 1 | z << 2


def padded(count: int) -> int:
    return _blocks(count, PADDING) * PADDING


def _blocks(count: int, size: int) -> int:
    return -(-count // size)


def _spread(v: Tensor) -> Tensor:
    """Two zero bits after each of 16."""
    for shift, mask in _SPREADING:
        v = (v | v << shift) & mask
    return v
