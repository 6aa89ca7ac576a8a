"""A convolution and the norm after it as one step of autograd: forward, and the gradients of all that goes in.

The sums of a tile leave it together with their mean and squared deviations, so the norm's statistics cost no pass of
their own. What goes in is cast to autocast's dtype, or float32; statistics, sums over rows and gradients of weights are
in float32 always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ditr.model.batch_norm import ranks_of
from ditr.model.sparse.triton import kernels
from ditr.model.sparse.triton.launch import kernel
from ditr.model.sparse.triton.maps import STEM_OFFSETS, ConvolutionMap, GatherMap
from ditr.model.sparse.triton.tiles import (
    PROGRAMS,
    STEM_ROWS,
    STEM_TAPS,
    GatherTile,
    GradientTile,
    gather_tile,
    gradient_tile,
    precision_of,
    width_of,
)
from ditr.ranks import Ranks

STEM_CHANNELS = 4
"""Of the stem's input, padded."""


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """What a convolution leaves."""

    values: Tensor
    """(n, out)"""
    partial: Tensor | None
    """(2, tiles, out) mean and squared deviations of each tile's rows; None where nobody wants them."""
    tile_rows: int


def convolve_and_norm(
    features: Tensor,
    weights: Tensor,
    norm: nn.BatchNorm1d,
    *,
    gather: ConvolutionMap | GatherMap,
    shortcut: Tensor | None,
    relu: bool,
) -> Tensor:
    """(V, in) -> (n, out); see ``VoxelSet.convolve_and_norm``. A GatherMap alone is that of the stem."""
    dtype = compute_dtype()
    if norm.training:
        cast(Tensor, norm.num_batches_tracked).add_(1)
    if isinstance(gather, GatherMap):
        assert not features.requires_grad, "the stem passes no gradient on"
        offsets, channels, _ = weights.shape
        features = nn.functional.pad(features, (0, STEM_CHANNELS - channels))
        weights = nn.functional.pad(weights, (0, 0, 0, STEM_CHANNELS - channels, 0, STEM_OFFSETS - offsets))
    shortcut = None if shortcut is None else shortcut.to(dtype).contiguous()
    out: Tensor = _ConvolutionAndNorm.apply(  # type: ignore[no-untyped-call]
        features.to(dtype).contiguous(), weights, norm.weight, norm.bias, shortcut, gather, norm, relu
    )
    return out


def compute_dtype() -> torch.dtype:
    """Autocast's, or float32."""
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else torch.float32


class _ConvolutionAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        gamma: Tensor,
        beta: Tensor,
        shortcut: Tensor | None,
        gather: ConvolutionMap | GatherMap,
        norm: nn.BatchNorm1d,
        relu: bool,
    ) -> Tensor:
        weights = weights.to(x.dtype).contiguous()  # in here, so that their gradient stays float32
        if isinstance(gather, GatherMap):
            sums = _stem(x, weights, gather, statistics=norm.training)
        else:
            sums = gathered_product(x, weights, gather.forward, statistics=norm.training)
        count = gather.count if isinstance(gather, GatherMap) else gather.forward.count
        constants, of_all = _norm_constants(sums, norm, count=count)
        z = _norm_apply(sums.values, constants, shortcut, count=count, relu=relu)
        ctx.save_for_backward(x, weights, sums.values, z if relu else None, constants)
        ctx.gather, ctx.count, ctx.has_shortcut = gather, count, shortcut is not None
        ctx.of_all, ctx.training, ctx.ranks = of_all, norm.training, ranks_of(norm)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, y, z, constants = ctx.saved_tensors
        gather = ctx.gather
        dy, of_norm, passed = _norm_gradient(
            dz.contiguous(),
            z,
            y,
            constants,
            count=ctx.count,
            of_all=ctx.of_all,
            training=ctx.training,
            keep=ctx.has_shortcut,
            ranks=ctx.ranks,
        )
        if isinstance(gather, GatherMap):
            dx, dw = None, _stem_weight_gradient(x, dy, gather)
        else:
            dw = weight_gradient(x, dy, gather, offsets=_volume(weights))
            dx = None
            if ctx.needs_input_grad[0]:
                dx = gathered_product(dy, weights, gather.backward, backward=True, mirrored=gather.mirrored).values
        return dx, dw.view(weights.shape), of_norm[0], of_norm[1], passed, None, None, None


def _volume(weights: Tensor) -> int:
    return len(weights) if weights.dim() == 3 else 1


def gathered_product(
    x: Tensor,
    weights: Tensor,
    gather: GatherMap,
    *,
    backward: bool = False,
    mirrored: bool = False,
    statistics: bool = False,
    tile: GatherTile | None = None,
) -> _Sums:
    """(n, out), of the transposed weights with ``backward``; ``tile`` is the card's unless it is being looked for."""
    *_, channels_in, channels_out = weights.shape
    if backward:
        channels_in, channels_out = channels_out, channels_in
    offsets, columns = gather.neighbours.shape
    tile = tile or gather_tile(offsets, channels_in, channels_out, dtype=x.dtype, device=x.device)
    tiles = -(-gather.room // tile.rows)
    y = x.new_empty(gather.room, channels_out)
    partial = y.new_empty(2, tiles, channels_out, dtype=torch.float32) if statistics else None
    kernel(
        kernels.gather_gemm,
        warps=tile.warps,
        stages=tile.stages,
        K=offsets,
        CIN=channels_in,
        COUT=channels_out,
        BACKWARD=backward,
        MIRRORED=mirrored,
        STATISTICS=statistics,
        PRECISION=precision_of(x.dtype),
        BM=tile.rows,
        BN=tile.columns,
        BR=tile.reduction,
    )(
        (tiles * -(-channels_out // tile.columns), 1, 1),
        x,
        weights,
        gather.neighbours,
        gather.present,
        gather.rows,
        y,
        partial,
        gather.count,
        tiles,
        columns,
    )
    return _Sums(values=y, partial=partial, tile_rows=tile.rows)


def weight_gradient(
    x: Tensor, dy: Tensor, gather: ConvolutionMap, *, offsets: int, tile: GradientTile | None = None
) -> Tensor:
    """(offsets, in, out) float32."""
    channels_in, channels_out = x.shape[1], dy.shape[1]
    tile = tile or gradient_tile(offsets, channels_in, channels_out, dtype=x.dtype, device=x.device)
    grid = (-(-channels_in // tile.channels_in), -(-channels_out // tile.channels_out))
    splits = max(1, min(PROGRAMS // (offsets * grid[0] * grid[1]), 64))
    partial = dy.new_empty(splits, offsets, channels_in, channels_out, dtype=torch.float32)
    kernel(
        kernels.weight_gradient,
        warps=tile.warps,
        stages=tile.stages,
        K=offsets,
        CIN=channels_in,
        COUT=channels_out,
        PRECISION=precision_of(x.dtype),
        BP=tile.pairs,
        BI=tile.channels_in,
        BO=tile.channels_out,
    )(
        (offsets * splits, *grid),
        x,
        dy,
        gather.pairs.sources,
        gather.pairs.targets,
        gather.pairs.starts,
        partial,
        splits,
    )
    return partial[0] if splits == 1 else partial.sum(0)


def _stem(x: Tensor, weights: Tensor, gather: GatherMap, *, statistics: bool) -> _Sums:
    channels, tiles = weights.shape[2], -(-gather.room // STEM_ROWS)
    y = x.new_empty(gather.room, channels)
    partial = y.new_empty(2, tiles, channels, dtype=torch.float32) if statistics else None
    kernel(
        kernels.stem,
        COUT=channels,
        STATISTICS=statistics,
        PRECISION=precision_of(x.dtype),
        BM=STEM_ROWS,
        BN=width_of(channels),
        TAPS=STEM_TAPS,
    )(
        (tiles, 1, 1),
        x,
        weights,
        gather.neighbours,
        gather.rows,
        y,
        partial,
        gather.count,
        tiles,
        gather.neighbours.shape[1],
    )
    return _Sums(values=y, partial=partial, tile_rows=STEM_ROWS)


def _stem_weight_gradient(x: Tensor, dy: Tensor, gather: GatherMap) -> Tensor:
    channels, shares = dy.shape[1], max(1, PROGRAMS // (STEM_OFFSETS // STEM_TAPS))
    partial = dy.new_empty(shares, STEM_OFFSETS * STEM_CHANNELS, channels, dtype=torch.float32)
    kernel(
        kernels.stem_weight_gradient,
        COUT=channels,
        PRECISION=precision_of(x.dtype),
        SHARES=shares,
        BM=STEM_ROWS,
        BN=width_of(channels),
        TAPS=STEM_TAPS,
    )(
        (shares, STEM_OFFSETS // STEM_TAPS, 1),
        x,
        dy,
        gather.neighbours,
        partial,
        gather.count,
        gather.neighbours.shape[1],
    )
    return partial.sum(0)


_FINE = {"BC": 16, "BT": 128}
"""Of the kernels that reduce tiles: channels of a program, and tiles at a time."""
_ROWS_AT_ONCE = 4096
"""Numbers in a block of the kernels that go over rows."""


def _norm_constants(sums: _Sums, norm: nn.BatchNorm1d, *, count: Tensor) -> tuple[Tensor, Tensor]:
    """(4, C) mean, 1 / std, scale, shift, and () how many rows of all ranks they are of; the running statistics move in
    training."""
    channels, ranks = sums.values.shape[1], ranks_of(norm)
    grid = (-(-channels // _FINE["BC"]), 1, 1)
    constants, of_all, partial = torch.empty(4, channels, device=sums.values.device), count, sums.partial
    tiles = 0 if partial is None else partial.shape[1]
    shared = partial is not None and ranks.count > 1
    if shared:
        moments = constants.new_empty(3, channels)
        kernel(kernels.norm_moments, C=channels, **_FINE)(grid, partial, moments, count, tiles, sums.tile_rows)
        partial, tiles = ranks.gathered(moments), ranks.count
        of_all = partial[:, 2, 0].sum()
    kernel(kernels.norm_constants, C=channels, TRAINING=norm.training, RANKS=shared, **_FINE)(
        grid,
        constants if partial is None else partial,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        constants,
        of_all,
        tiles,
        sums.tile_rows,
        norm.momentum,
        norm.eps,
    )
    return constants, of_all


def _norm_apply(y: Tensor, constants: Tensor, shortcut: Tensor | None, *, count: Tensor, relu: bool) -> Tensor:
    room, channels = y.shape
    block = _block(channels)
    z = torch.empty_like(y)
    kernel(kernels.norm_apply, C=channels, RELU=relu, **block)(
        (-(-room // block["BM"]), 1, 1), y, constants, shortcut, z, count
    )
    return z


def _norm_gradient(
    dz: Tensor,
    z: Tensor | None,
    y: Tensor,
    constants: Tensor,
    *,
    count: Tensor,
    of_all: Tensor,
    training: bool,
    keep: bool,
    ranks: Ranks,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """dy, (2, C) of gamma and beta, and with ``keep`` what passes on to a shortcut: dz where z is positive."""
    room, channels = y.shape
    block = _block(channels)
    partial = y.new_empty(2, PROGRAMS, channels, dtype=torch.float32)
    passed = torch.empty_like(y) if keep and z is not None else None
    kernel(kernels.norm_gradient_sums, C=channels, SHARES=PROGRAMS, **block)(
        (PROGRAMS, 1, 1), dz, z, y, constants, passed, partial, count
    )
    gradients, coefficients = partial.new_empty(2, channels), partial.new_empty(3, channels)
    _norm_gradient_constants(partial, constants, gradients, coefficients, count=of_all, training=training)
    if training and ranks.count > 1:  # dy follows from the sums of all ranks, the weights' gradients are added up later
        total = ranks.total(gradients).flip(0).unsqueeze(1)
        _norm_gradient_constants(
            total, constants, torch.empty_like(gradients), coefficients, count=of_all, training=training
        )
    masked, mask = (dz, z) if passed is None else (passed, None)
    dy = torch.empty_like(y)
    kernel(kernels.norm_gradient_apply, C=channels, **block)(
        (-(-room // block["BM"]), 1, 1), masked, mask, y, coefficients, dy, count
    )
    return dy, gradients, dz if keep and z is None else passed


def _norm_gradient_constants(
    partial: Tensor, constants: Tensor, gradients: Tensor, coefficients: Tensor, *, count: Tensor, training: bool
) -> None:
    """From (2, shares, C) sums to the gradients of gamma and beta, and to what makes dy of d and y."""
    channels = constants.shape[1]
    kernel(kernels.norm_gradient_constants, C=channels, TRAINING=training, SHARES=partial.shape[1], **_FINE)(
        (-(-channels // _FINE["BC"]), 1, 1), partial, constants, gradients, coefficients, count
    )


def _block(channels: int) -> dict[str, int]:
    """Rows and channels of the kernels that go over rows."""
    width = width_of(channels)
    return {"BM": max(1, _ROWS_AT_ONCE // width), "BC": width}
