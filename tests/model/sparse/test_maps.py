"""What voxels are where, and which a convolution connects, against sets of Python."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np
import pytest
import torch

from ditr.model.sparse import Voxels
from ditr.model.sparse.triton import TritonVoxels, maps
from ditr.model.sparse.triton.maps import ConvolutionMap, GatherMap
from ditr.spec.models import Engine
from tests.reference.clouds import VOXEL_SIZE_M, cloud, level_of, places, points_of, voxels_of

Corner = tuple[int, ...]
Connected = set[tuple[int, Corner, Corner]]
"""(offset, from, to)"""
STRIDES = (1, 2, 4, 8, 16)


def corners_of(voxels: Voxels, *, stride: int) -> list[Corner]:
    return [tuple(row) for row in level_of(voxels, stride=stride).corners.tolist()]


def own(voxels: Voxels, *, stride: int) -> TritonVoxels:
    found = level_of(voxels, stride=stride)
    assert isinstance(found, TritonVoxels)
    return found


def moved(corner: Corner, by: tuple[int, int, int], *, stride: int) -> Corner:
    return (corner[0], *(at + stride * step for at, step in zip(corner[1:], by, strict=True)))


def offsets(size: int) -> list[tuple[int, int, int]]:
    along = range(-(size // 2), size // 2 + 1) if size % 2 else range(size)
    return [(x, y, z) for z, y, x in product(along, repeat=3)]


def around(corners: list[Corner], *, size: int, stride: int) -> Connected:
    there = set(corners)
    steps = list(enumerate(offsets(size)))
    return {
        (k, moved(at, by, stride=stride), at)
        for at in there
        for k, by in steps
        if moved(at, by, stride=stride) in there
    }


def between(fine: list[Corner], coarse: list[Corner], *, stride: int) -> Connected:
    """Offset by offset from the fine to the coarse, whose stride is twice."""
    there, steps = set(fine), list(enumerate(offsets(2)))
    return {
        (k, moved(at, by, stride=stride), at)
        for at in coarse
        for k, by in steps
        if moved(at, by, stride=stride) in there
    }


def gathered(gather: GatherMap, source: list[Corner], target: list[Corner]) -> Connected:
    """What a map connects; each row comes out of one column, and of each column ``present`` says which it has."""
    neighbours, rows = gather.neighbours[:, : len(target)], gather.rows[: len(target)]
    assert sorted(rows.tolist()) == list(range(len(target)))
    assert gather.count.tolist() == [len(target)] == [gather.room]
    k, t = (neighbours >= 0).nonzero().T
    return {
        (a, source[b], target[c])
        for a, b, c in zip(k.tolist(), neighbours[k, t].tolist(), rows[t].tolist(), strict=True)
    }


def assert_present(gather: GatherMap) -> None:
    bits = (gather.neighbours >= 0).long() << torch.arange(len(gather.neighbours))[:, None]
    n = gather.room
    assert torch.equal(gather.present[:n].long(), bits.sum(0)[:n])


def listed(found: ConvolutionMap, source: list[Corner], target: list[Corner]) -> Connected:
    starts = found.pairs.starts.tolist()
    count = starts[-1]
    sources, targets = found.pairs.sources[:count].tolist(), found.pairs.targets[:count].tolist()
    offset = np.repeat(np.arange(len(starts) - 1), np.diff(starts)).tolist()
    pairs = [(k, source[i], target[o]) for k, i, o in zip(offset, sources, targets, strict=True)]
    assert len(set(pairs)) == len(pairs)
    return set(pairs)


def turned(connected: Connected, *, mirrored: int | None = None) -> Connected:
    """To and from swapped; of the mirrored kernel of so many offsets."""
    return {(k if mirrored is None else mirrored - 1 - k, target, source) for k, source, target in connected}


@pytest.mark.parametrize("stride", STRIDES)
def test_neighbours_of_a_stride(by_engine: dict[Engine, Voxels], stride: int) -> None:
    corners, voxels = corners_of(by_engine["triton"], stride=stride), own(by_engine["triton"], stride=stride)
    within, expected = voxels.maps.within, around(corners, size=3, stride=stride)
    assert len(expected) > len(corners) or stride > 4
    assert gathered(within.forward, corners, corners) == expected
    assert listed(within, corners, corners) == expected
    assert within.mirrored
    assert gathered(within.backward, corners, corners) == turned(expected, mirrored=27)
    assert_present(within.forward)
    same = {(0, corner, corner) for corner in corners}
    assert gathered(voxels.maps.alone.forward, corners, corners) == same == listed(voxels.maps.alone, corners, corners)


def test_neighbours_of_the_stem(by_engine: dict[Engine, Voxels]) -> None:
    corners = corners_of(by_engine["triton"], stride=1)
    stem = own(by_engine["triton"], stride=1).maps.stem
    assert gathered(stem, corners, corners) == around(corners, size=5, stride=1)


@pytest.mark.parametrize("stride", STRIDES[:-1])
def test_from_one_stride_to_the_next_and_back(by_engine: dict[Engine, Voxels], stride: int) -> None:
    voxels = own(by_engine["triton"], stride=stride)
    fine, coarse = corners_of(by_engine["triton"], stride=stride), corners_of(by_engine["triton"], stride=2 * stride)
    expected = between(fine, coarse, stride=stride)
    assert len(expected) == len(fine)
    down, up = voxels.maps.down, voxels.maps.up
    assert gathered(down.forward, fine, coarse) == listed(down, fine, coarse) == expected
    assert gathered(up.forward, coarse, fine) == listed(up, coarse, fine) == turned(expected)
    assert gathered(down.backward, coarse, fine) == turned(expected)
    assert gathered(up.backward, fine, coarse) == expected
    assert_present(down.forward)
    assert_present(up.forward)


@pytest.mark.parametrize("stride", STRIDES)
def test_both_engines_have_the_same_voxels_parents_and_pairs(by_engine: dict[Engine, Voxels], stride: int) -> None:
    ours, theirs = (level_of(by_engine[engine], stride=stride) for engine in ("triton", "minkowski"))
    finest = places(level_of(by_engine["triton"], stride=1))
    assert places(ours) == places(theirs) == sorted({(b, *(at // stride * stride for at in xyz)) for b, *xyz in finest})
    assert ours.corners.dtype == theirs.corners.dtype == torch.int32
    assert ours.pairs(27, onto=ours) == theirs.pairs(27, onto=theirs)
    if stride == 1:
        assert ours.pairs(125, onto=ours) == theirs.pairs(125, onto=theirs)
    if stride < 16:
        assert ours.pairs(8, onto=ours.coarser) == theirs.pairs(8, onto=theirs.coarser) == len(ours)
        assert ours.coarser.pairs(8, onto=ours) == theirs.coarser.pairs(8, onto=theirs) == len(ours)
        for one in (ours, theirs):
            index, *xyz = one.corners.T
            above = torch.stack([index, *(at.div(2 * stride, rounding_mode="floor") * 2 * stride for at in xyz)], dim=1)
            assert torch.equal(one.coarser.corners[one.parents], above)


@pytest.mark.parametrize("stride", STRIDES)
def test_rows_are_in_morton_order(by_engine: dict[Engine, Voxels], stride: int) -> None:
    def key(corner: Corner) -> tuple[int, str]:
        """The batch index, then the axes' bits in turn, the last axis's before the first's."""
        x, y, z = (f"{at + 64:016b}" for at in corner[1:])
        return corner[0], "".join("".join(bits) for bits in zip(z, y, x, strict=True))

    corners = corners_of(by_engine["triton"], stride=stride)
    assert corners == sorted(corners, key=key)


def test_points_find_their_voxel_and_colours_are_means() -> None:
    draw = torch.Generator().manual_seed(5)
    clouds = [torch.randn(points, 3, generator=draw) * 0.05 for points in (70, 40)]
    batch = points_of([(xyz, torch.randn(len(xyz), 3, generator=draw)) for xyz in clouds])
    voxels = voxels_of(batch, engine="triton")
    colours, keys = defaultdict(list), []
    for index, sample in enumerate(batch):
        for corner, colour in zip(
            np.floor(sample.xyz.numpy() / np.float32(VOXEL_SIZE_M)).astype(int).tolist(), sample.colour, strict=True
        ):
            keys.append((index, *corner))
            colours[keys[-1]].append(colour)
    corners = corners_of(voxels, stride=1)
    assert sorted(corners) == sorted(colours)
    assert len(keys) > len(colours) + 20, "voxels with several points"
    assert keys != sorted(keys), "points in no order"
    assert [corners[row] for row in voxels.voxel_of_point.tolist()] == keys
    expected = torch.stack([torch.stack(colours[corner]).mean(0) for corner in corners])
    torch.testing.assert_close(voxels.tensor.features, expected, rtol=0, atol=1e-6)
    assert voxels.sizes == (70, 40)


def test_more_voxels_than_a_block_lists_or_sorts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "NEAR", 256)
    corners = cloud(1100, seed=2, within=12, lowest=0)
    keys = maps.keys_of(corners + 16, batch_index=torch.zeros(len(corners), dtype=torch.int64)).sort().values
    found = maps.StrideMaps(len(keys), coarse=None, stem=False, device=keys.device)
    maps.fill(found, keys, level=0, parents=None)
    at = [tuple(row) for row in torch.nn.functional.pad(maps.corners_of(keys, level=0)[1], (1, 0)).tolist()]
    expected = around(at, size=3, stride=1)
    assert gathered(found.within.forward, at, at) == listed(found.within, at, at) == expected
    blocks = found.within.forward.rows[: len(keys)] // 256
    assert torch.equal(blocks, blocks.sort().values), "columns leave their block"
    for block in range(4):
        here = found.within.forward.present[: len(keys)][blocks == block]
        assert torch.equal(here, here.sort().values), "columns with the same offsets lie apart"
