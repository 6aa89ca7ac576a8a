"""The kernels of a network: gathered products and their weight gradients, and batch norm.

Every sum runs in an order that the rows and the tile decide, without atomics: results are the same bits every time.
How many rows there are is read on the device (``count``): tensors may have room for more, of which nothing is read.
``constexpr`` parameters come last and are those of ``launch.Kernel``.
"""

import triton
import triton.language as tl


@triton.jit
def _or(a, b):
    return a | b


@triton.jit
def _store_tile(
    acc, y, partial, rows, t, n, co, tile, tiles, COUT: tl.constexpr, BM: tl.constexpr, STATISTICS: tl.constexpr
):
    """A tile at its rows; with STATISTICS also the mean of each channel and its sum of squared deviations."""
    live, ok = t < n, co < COUT
    both = live[:, None] & ok[None, :]
    v = acc.to(y.dtype.element_ty)
    tl.store(y + tl.load(rows + t, mask=live, other=0)[:, None] * COUT + co[None, :], v, mask=both)
    if STATISTICS:
        v = v.to(tl.float32)
        share = tl.maximum(tl.minimum(BM, n - tile * BM), 1).to(tl.float32)
        mean = tl.sum(tl.where(both, v, 0.0), 0) / share
        d = tl.where(both, v - mean[None, :], 0.0)
        tl.store(partial + tile * COUT + co, mean, mask=ok)
        tl.store(partial + (tiles + tile) * COUT + co, tl.sum(d * d, 0), mask=ok)


@triton.jit(do_not_specialize=["tiles"])
def gather_gemm(
    x, w, neighbours, present, rows, y, partial, count, tiles, ld,
    K: tl.constexpr, CIN: tl.constexpr, COUT: tl.constexpr, BACKWARD: tl.constexpr, MIRRORED: tl.constexpr,
    STATISTICS: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """y[rows[t]] = sum over k of x[neighbours[k, t]] @ w[k]; BACKWARD: w is (K, COUT, CIN) and is read transposed."""
    NN: tl.constexpr = (COUT + BN - 1) // BN
    NR: tl.constexpr = (CIN + BR - 1) // BR
    pid, n = tl.program_id(0), tl.load(count)
    tile, t, co = pid // NN, (pid // NN) * BM + tl.arange(0, BM), (pid % NN) * BN + tl.arange(0, BN)
    left = tl.reduce(tl.load(present + t, mask=t < n, other=0), 0, _or)  # offsets of this tile that are to come
    c = left - ((left >> 1) & 0x55555555)
    c = (c & 0x33333333) + ((c >> 2) & 0x33333333)
    c = (((c + (c >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for i in range(c * NR):  # one flat loop, or nothing is pipelined across offsets
        lowest = left & (0 - left)
        k = (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127  # its number: the exponent of the float
        r = (i % NR) * BR + tl.arange(0, BR)
        source = tl.load(neighbours + k * ld + t, mask=t < n, other=-1)
        a = tl.load(x + source[:, None] * CIN + r[None, :], mask=(source >= 0)[:, None] & (r < CIN)[None, :], other=0.0)
        kw = k
        if MIRRORED:
            kw = K - 1 - k
        if BACKWARD:
            at = w + kw * (CIN * COUT) + co[None, :] * CIN + r[:, None]
        else:
            at = w + kw * (CIN * COUT) + r[:, None] * COUT + co[None, :]
        b = tl.load(at, mask=(r < CIN)[:, None] & (co < COUT)[None, :], other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
        left = tl.where(i % NR == NR - 1, left & (left - 1), left)
    _store_tile(acc, y, partial, rows, t, n, co, tile, tiles, COUT, BM, STATISTICS)


@triton.jit(do_not_specialize=["splits"])
def weight_gradient(
    x, dy, sources, targets, starts, partial, splits,
    K: tl.constexpr, CIN: tl.constexpr, COUT: tl.constexpr, PRECISION: tl.constexpr,
    BP: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """partial[s, k] = sum over the s-th share of offset k's pairs of x[source]^T dy[target]."""
    k, s = tl.program_id(0) // splits, tl.program_id(0) % splits
    ci, co = tl.program_id(1) * BI + tl.arange(0, BI), tl.program_id(2) * BO + tl.arange(0, BO)
    lo, hi = tl.load(starts + k), tl.load(starts + k + 1)
    share = tl.cdiv(tl.cdiv(hi - lo, splits), BP) * BP
    lo = lo + s * share
    hi = tl.minimum(hi, lo + share)
    acc = tl.zeros((BI, BO), dtype=tl.float32)
    for p in range(lo, hi, BP):
        q = p + tl.arange(0, BP)
        live = q < hi
        i, o = tl.load(sources + q, mask=live, other=0), tl.load(targets + q, mask=live, other=0)
        a = tl.load(x + i[:, None] * CIN + ci[None, :], mask=live[:, None] & (ci < CIN)[None, :], other=0.0)
        g = tl.load(dy + o[:, None] * COUT + co[None, :], mask=live[:, None] & (co < COUT)[None, :], other=0.0)
        acc = tl.dot(tl.trans(a), g, acc, input_precision=PRECISION)
    at = ((s * K + k) * CIN + ci[:, None]) * COUT + co[None, :]
    tl.store(partial + at, acc, mask=(ci < CIN)[:, None] & (co < COUT)[None, :])


@triton.jit
def _taps(x, neighbours, t, n, first, ld, BM: tl.constexpr, TAPS: tl.constexpr):
    """(BM, TAPS * 4): four channels of the neighbour at each of TAPS offsets."""
    tap, c = first + tl.arange(0, TAPS), tl.arange(0, 4)
    source = tl.load(neighbours + tap[None, :] * ld + t[:, None], mask=(t < n)[:, None] & (tap >= 0)[None, :], other=-1)
    live = (source >= 0)[:, :, None] & (c >= 0)[None, None, :]
    a = tl.load(x + source[:, :, None] * 4 + c[None, None, :], mask=live, other=0.0)
    return tl.reshape(a, (BM, TAPS * 4))


@triton.jit(do_not_specialize=["tiles"])
def stem(
    x, w, neighbours, rows, y, partial, count, tiles, ld,
    COUT: tl.constexpr, STATISTICS: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """gather_gemm for few channels in: x (V, 4), w (128 * 4, COUT) and 128 offsets, padded with zeros and with -1."""
    tile, co, n = tl.program_id(0), tl.arange(0, BN), tl.load(count)
    t = tile * BM + tl.arange(0, BM)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for first in range(0, 128, TAPS):
        a = _taps(x, neighbours, t, n, first, ld, BM, TAPS)
        at = w + (first * 4 + tl.arange(0, TAPS * 4))[:, None] * COUT + co[None, :]
        acc = tl.dot(a, tl.load(at, mask=(co < COUT)[None, :], other=0.0), acc, input_precision=PRECISION)
    _store_tile(acc, y, partial, rows, t, n, co, tile, tiles, COUT, BM, STATISTICS)


@triton.jit
def stem_weight_gradient(
    x, dy, neighbours, partial, count, ld,
    COUT: tl.constexpr, PRECISION: tl.constexpr, SHARES: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """partial[s] (128 * 4, COUT) of the s-th of SHARES shares of the rows."""
    n = tl.load(count)
    share = tl.cdiv(tl.cdiv(n, BM), SHARES) * BM
    s, first, co = tl.program_id(0), tl.program_id(1) * TAPS, tl.arange(0, BN)
    ok = (co < COUT)[None, :]
    acc = tl.zeros((TAPS * 4, BN), dtype=tl.float32)
    for p in range(s * share, tl.minimum(n, (s + 1) * share), BM):
        t = p + tl.arange(0, BM)
        a = _taps(x, neighbours, t, n, first, ld, BM, TAPS)
        g = tl.load(dy + t[:, None] * COUT + co[None, :], mask=(t < n)[:, None] & ok, other=0.0)
        acc = tl.dot(tl.trans(a), g, acc, input_precision=PRECISION)
    tl.store(partial + (s * 512 + first * 4 + tl.arange(0, TAPS * 4))[:, None] * COUT + co[None, :], acc, mask=ok)


@triton.jit
def _rows(partial, t, n, tiles, tile_rows, C: tl.constexpr, RANKS: tl.constexpr):
    """How many rows each tile has: n fill one after the other; a rank says how many it has."""
    if RANKS:
        return tl.load(partial + t * 3 * C + 2 * C, mask=t < tiles, other=0.0)
    return tl.maximum(tl.minimum(tile_rows, n - t * tile_rows), 0).to(tl.float32)


@triton.jit
def _moments(
    partial, n, tiles, tile_rows, c, ok,
    C: tl.constexpr, RANKS: tl.constexpr, BC: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """Mean and squared deviations of n rows, from (2, tiles, C) of tiles or (ranks, 3, C) of RANKS, which are as tiles
    whose numbers of rows stand there too."""
    stride: tl.constexpr = 3 * C if RANKS else C
    if RANKS:
        end, squares = tiles, partial + C
    else:
        end, squares = tl.cdiv(n, tile_rows), partial + tiles * C
    total = tl.zeros((BT, BC), dtype=tl.float32)
    for t0 in range(0, end, BT):
        t = t0 + tl.arange(0, BT)
        rows = _rows(partial, t, n, tiles, tile_rows, C, RANKS)
        both = (rows > 0)[:, None] & ok[None, :]
        total += tl.load(partial + t[:, None] * stride + c[None, :], mask=both, other=0.0) * rows[:, None]
    mean = tl.sum(total, 0) / n
    total = tl.zeros((BT, BC), dtype=tl.float32)
    for t0 in range(0, end, BT):
        t = t0 + tl.arange(0, BT)
        rows = _rows(partial, t, n, tiles, tile_rows, C, RANKS)
        both = (rows > 0)[:, None] & ok[None, :]
        d = tl.load(partial + t[:, None] * stride + c[None, :], mask=both, other=0.0) - mean[None, :]
        of_tile = tl.load(squares + t[:, None] * stride + c[None, :], mask=both, other=0.0)
        total += tl.where(both, of_tile + rows[:, None] * d * d, 0.0)
    return mean, tl.sum(total, 0)


@triton.jit(do_not_specialize=["tiles", "tile_rows"])
def norm_moments(
    partial, moments, count, tiles, tile_rows,
    C: tl.constexpr, BC: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """moments (3, C) = mean, squared deviations and number of the rows of all tiles."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    ok = c < C
    n = tl.load(count)
    mean, square = _moments(partial, n, tiles, tile_rows, c, ok, C, False, BC, BT)
    tl.store(moments + c, mean, mask=ok)
    tl.store(moments + C + c, square, mask=ok)
    tl.store(moments + 2 * C + c, tl.zeros((BC,), dtype=tl.float32) + n, mask=ok)


@triton.jit(do_not_specialize=["tiles", "tile_rows"])
def norm_constants(
    partial, gamma, beta, running_mean, running_var, constants, count, tiles, tile_rows, momentum, eps,
    C: tl.constexpr, TRAINING: tl.constexpr, RANKS: tl.constexpr, BC: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """constants = mean, 1 / std, scale, shift; in TRAINING of the batch, and the running statistics move towards it."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    ok = c < C
    mean, var = tl.load(running_mean + c, mask=ok, other=0.0), tl.load(running_var + c, mask=ok, other=1.0)
    if TRAINING:
        n = tl.load(count)
        now, square = _moments(partial, n, tiles, tile_rows, c, ok, C, RANKS, BC, BT)
        tl.store(running_mean + c, mean + momentum * (now - mean), mask=ok)
        tl.store(running_var + c, var + momentum * (square / (n - 1) - var), mask=ok)
        mean, var = now, square / n
    rstd = 1.0 / tl.sqrt(var + eps)
    scale = tl.load(gamma + c, mask=ok, other=0.0) * rstd
    tl.store(constants + c, mean, mask=ok)
    tl.store(constants + C + c, rstd, mask=ok)
    tl.store(constants + 2 * C + c, scale, mask=ok)
    tl.store(constants + 3 * C + c, tl.load(beta + c, mask=ok, other=0.0) - mean * scale, mask=ok)


@triton.jit
def norm_apply(
    y, constants, shortcut, z, count,
    C: tl.constexpr, RELU: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """z = scale * y + shift + shortcut, and its positive part with RELU."""
    n = tl.load(count)
    r, c = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, BC)
    ok = c < C
    at, both = r[:, None] * C + c[None, :], (r < n)[:, None] & ok[None, :]
    v = tl.load(y + at, mask=both, other=0.0).to(tl.float32)
    v = v * tl.load(constants + 2 * C + c, mask=ok, other=0.0)[None, :]
    v += tl.load(constants + 3 * C + c, mask=ok, other=0.0)[None, :]
    if shortcut is not None:
        v += tl.load(shortcut + at, mask=both, other=0.0).to(tl.float32)
    if RELU:
        v = tl.maximum(v, 0.0)
    tl.store(z + at, v.to(z.dtype.element_ty), mask=both)


@triton.jit
def norm_gradient_sums(
    dz, z, y, constants, kept, partial, count,
    C: tl.constexpr, SHARES: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Sums over each share of the rows of d and of d * normalised y; d is dz where z is positive, and put in kept.

    Without z, d is dz everywhere.
    """
    n = tl.load(count)
    share = tl.cdiv(tl.cdiv(n, BM), SHARES) * BM
    c = tl.arange(0, BC)
    ok = c < C
    mean, rstd = tl.load(constants + c, mask=ok, other=0.0), tl.load(constants + C + c, mask=ok, other=0.0)
    s0, s1 = tl.zeros((BM, BC), dtype=tl.float32), tl.zeros((BM, BC), dtype=tl.float32)
    first = tl.program_id(0) * share
    for r0 in range(first, tl.minimum(n, first + share), BM):
        r = r0 + tl.arange(0, BM)
        at, both = r[:, None] * C + c[None, :], (r < n)[:, None] & ok[None, :]
        d = tl.load(dz + at, mask=both, other=0.0).to(tl.float32)
        if z is not None:
            d = tl.where(tl.load(z + at, mask=both, other=0.0) > 0, d, 0.0)
        if kept is not None:
            tl.store(kept + at, d.to(kept.dtype.element_ty), mask=both)
        s0 += d
        s1 += d * ((tl.load(y + at, mask=both, other=0.0).to(tl.float32) - mean[None, :]) * rstd[None, :])
    tl.store(partial + tl.program_id(0) * C + c, tl.sum(s0, 0), mask=ok)
    tl.store(partial + (SHARES + tl.program_id(0)) * C + c, tl.sum(s1, 0), mask=ok)


@triton.jit
def norm_gradient_constants(
    partial, constants, gradients, coefficients, count,
    C: tl.constexpr, TRAINING: tl.constexpr, SHARES: tl.constexpr, BC: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """gradients = d gamma, d beta; dy = coefficients0 * d + coefficients1 * y + coefficients2."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    ok = c < C
    s0, s1 = tl.zeros((BT, BC), dtype=tl.float32), tl.zeros((BT, BC), dtype=tl.float32)
    for t0 in range(0, SHARES, BT):
        t = t0 + tl.arange(0, BT)
        both = (t < SHARES)[:, None] & ok[None, :]
        s0 += tl.load(partial + t[:, None] * C + c[None, :], mask=both, other=0.0)
        s1 += tl.load(partial + (SHARES + t[:, None]) * C + c[None, :], mask=both, other=0.0)
    sd, sh = tl.sum(s0, 0), tl.sum(s1, 0)
    mean, rstd = tl.load(constants + c, mask=ok, other=0.0), tl.load(constants + C + c, mask=ok, other=0.0)
    scale = tl.load(constants + 2 * C + c, mask=ok, other=0.0)
    tl.store(gradients + c, sh, mask=ok)
    tl.store(gradients + C + c, sd, mask=ok)
    slope, shift = tl.zeros((BC,), dtype=tl.float32), tl.zeros((BC,), dtype=tl.float32)
    if TRAINING:
        n = tl.load(count)
        slope = -scale * rstd * sh / n
        shift = -scale * sd / n - slope * mean
    tl.store(coefficients + c, scale, mask=ok)
    tl.store(coefficients + C + c, slope, mask=ok)
    tl.store(coefficients + 2 * C + c, shift, mask=ok)


@triton.jit
def norm_gradient_apply(
    dz, z, y, coefficients, dy, count,
    C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dy; d is dz where z is positive, everywhere without z."""
    n = tl.load(count)
    r, c = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, BC)
    ok = c < C
    at, both = r[:, None] * C + c[None, :], (r < n)[:, None] & ok[None, :]
    d = tl.load(dz + at, mask=both, other=0.0).to(tl.float32)
    if z is not None:
        d = tl.where(tl.load(z + at, mask=both, other=0.0) > 0, d, 0.0)
    v = d * tl.load(coefficients + c, mask=ok, other=0.0)[None, :]
    v += tl.load(coefficients + 2 * C + c, mask=ok, other=0.0)[None, :]
    slope = tl.load(coefficients + C + c, mask=ok, other=0.0)[None, :]
    v += tl.load(y + at, mask=both, other=0.0).to(tl.float32) * slope
    tl.store(dy + at, v.to(dy.dtype.element_ty), mask=both)
