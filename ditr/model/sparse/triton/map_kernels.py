"""The kernels that make maps: which voxels are neighbours, and how columns and pairs are arranged.

``constexpr`` parameters come last and are those of ``launch.Kernel``.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n", "axis", "steps"])
def find_neighbours(
    keys, deltas, neighbours, n, ld, axis, steps,
    K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """neighbours[k, i] = row of the voxel at offset k of voxel i, found by bisection, and its mirror image.

    ``axis`` has the bits of the first axis in a Morton key. An offset without a voxel is left as it is.
    """
    i, k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    live = i < n
    key, d = tl.load(keys + i, mask=live, other=0), tl.load(deltas + k)
    y, z = axis << 1, axis << 2
    q = (((key | (axis ^ -1)) + (d & axis)) & axis) | (((key | (y ^ -1)) + (d & y)) & y)  # keys add axis by axis
    q = q | (((key | (z ^ -1)) + (d & z)) & z) | (key & ((axis | y | z) ^ -1))
    at = tl.zeros((BLOCK,), dtype=tl.int32)
    for s in range(steps):
        next_at = at + (1 << (steps - 1 - s))
        below = tl.load(keys + next_at - 1, mask=next_at <= n, other=0) < q
        at = tl.where((next_at <= n) & below, next_at, at)
    hit = live & (at < n)
    hit = hit & (tl.load(keys + at, mask=hit, other=-1) == q)
    tl.store(neighbours + k * ld + i, at, mask=hit)
    tl.store(neighbours + (K - 1 - k) * ld + at, i, mask=hit)
    tl.store(neighbours + K // 2 * ld + i, i, mask=live & (k == 0))


@triton.jit(do_not_specialize=["n"])
def column_keys(
    neighbours, keys, n, ld,
    K: tl.constexpr, BLOCK: tl.constexpr, NEAR: tl.constexpr,
):  # fmt: skip
    """What columns are sorted by: their block of NEAR rows, then which of the K offsets they have; the padding last."""
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    present = tl.zeros((BLOCK,), dtype=tl.int64)
    for k in range(K):
        here = tl.load(neighbours + k * ld + t, mask=t < ld, other=-1) >= 0
        present = present | (here.to(tl.int64) << k)
    block = tl.where(t < n, t // NEAR, 1 << 24).to(tl.int64)
    tl.store(keys + t, (block << 27) | present, mask=t < ld)


@triton.jit(do_not_specialize=["n"])
def arrange_columns(
    neighbours, order, keys, arranged, present, rows, n, ld,
    K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The columns in their order: neighbours (K, ld), which offsets each has, and the row it is for."""
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = t < ld
    column = tl.load(order + t, mask=live, other=0)
    for k in range(K):
        tl.store(arranged + k * ld + t, tl.load(neighbours + k * ld + column, mask=live, other=-1), mask=live)
    tl.store(present + t, (tl.load(keys + t, mask=live, other=0) & ((1 << 27) - 1)).to(tl.int32), mask=live)
    tl.store(rows + t, tl.where(column < n, column, 0).to(tl.int32), mask=live)


@triton.jit(do_not_specialize=["blocks"])
def count_pairs(
    neighbours, counts, blocks, ld,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """counts[k, b] = how many columns of block b have offset k."""
    b, k = tl.program_id(0), tl.program_id(1)
    t = b * BLOCK + tl.arange(0, BLOCK)
    here = tl.load(neighbours + k * ld + t, mask=t < ld, other=-1) >= 0
    tl.store(counts + k * blocks + b, tl.sum(here.to(tl.int32), 0))


@triton.jit(do_not_specialize=["blocks"])
def list_pairs(
    neighbours, rows, ends, sources, targets, starts, blocks, ld,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Pairs by offset, then by column; ends[k, b] counts them up to and with block b of offset k."""
    b, k = tl.program_id(0), tl.program_id(1)
    t = b * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(neighbours + k * ld + t, mask=t < ld, other=-1)
    here = source >= 0
    number = tl.cumsum(here.to(tl.int32), 0)
    end = tl.load(ends + k * blocks + b).to(tl.int32)
    at = end - tl.sum(here.to(tl.int32), 0) + number - 1
    tl.store(sources + at, source, mask=here)
    tl.store(targets + at, tl.load(rows + t, mask=here, other=0), mask=here)
    if b == blocks - 1:
        tl.store(starts + k + 1, end)
    if (b == 0) & (k == 0):
        tl.store(starts, 0)


@triton.jit(do_not_specialize=["n"])
def keep_distinct(
    keys, rows, distinct, n,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """distinct[rows[i]] = keys[i]; equal keys have equal rows."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = i < n
    tl.store(distinct + tl.load(rows + i, mask=live, other=0), tl.load(keys + i, mask=live, other=0), mask=live)


@triton.jit(do_not_specialize=["n"])
def place_children(
    keys, parents, children, n, ld,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """children[slot, parent] = i; the slot of a voxel is the last three bits of its key."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = i < n
    slot = (tl.load(keys + i, mask=live, other=0) & 7).to(tl.int32)
    tl.store(children + slot * ld + tl.load(parents + i, mask=live, other=0), i, mask=live)


@triton.jit(do_not_specialize=["n"])
def place_parents(
    keys, fine, coarse, neighbours, present, rows, n, ld,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A column for each pair of a fine and a coarse voxel: it has the coarse one at the slot of the fine one alone."""
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = t < n
    row = tl.load(fine + t, mask=live, other=0)
    slot = (tl.load(keys + row, mask=live, other=0) & 7).to(tl.int32)
    parent = tl.load(coarse + t, mask=live, other=-1)
    for k in range(8):
        tl.store(neighbours + k * ld + t, tl.where(live & (slot == k), parent, -1), mask=t < ld)
    tl.store(present + t, tl.where(live, 1 << slot, 0), mask=t < ld)
    tl.store(rows + t, row, mask=t < ld)


@triton.jit(do_not_specialize=["n"])
def place_alone(
    count, present, rows, starts, n, ld,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The count of rows, and each row's column."""
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(present + t, 1, mask=t < ld)
    tl.store(rows + t, t, mask=t < ld)
    if tl.program_id(0) == 0:
        tl.store(count, n)
        tl.store(starts, 0)
        tl.store(starts + 1, n)
