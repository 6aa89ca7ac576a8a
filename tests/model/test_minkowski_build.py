"""The installed MinkowskiEngine computes what torch computes densely: a wrong build would only make the numbers worse.

The scene is a 16^3 volume with a tenth of its cells occupied, around the origin: half of the coordinates are
negative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ditr.model.sparse.minkowski import ME

SIZE = 16
ORIGIN = SIZE // 2
CHANNELS_IN, CHANNELS_OUT = 3, 5
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


class Scene:
    """The same random features as a sparse tensor and as a dense volume that is zero where nothing is."""

    def __init__(self, *, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.occupied = torch.rand(SIZE, SIZE, SIZE, generator=draw) < 0.1
        self.index = self.occupied.nonzero()
        self.features = torch.randn(len(self.index), CHANNELS_IN, generator=draw).requires_grad_()
        coordinates = functional.pad(self.index - ORIGIN, (1, 0)).int()
        self.sparse = ME.SparseTensor(self.features, coordinates=coordinates)

    def volume(self, *, empty: float = 0.0) -> Tensor:
        """(1, C, 16, 16, 16), differentiable in ``features``."""
        x, y, z = self.index.T
        dense = torch.full((SIZE, SIZE, SIZE, CHANNELS_IN), empty).index_put((x, y, z), self.features)
        return dense.permute(3, 0, 1, 2)[None]


def read(volume: Tensor, at: Any) -> Tensor:
    """The rows of a dense (1, C, ...) volume at a sparse tensor's voxels."""
    stride = at.tensor_stride[0]
    x, y, z = ((at.C[:, 1:].long() + ORIGIN) // stride).T
    return volume[0, :, x, y, z].T


def dense_kernel(layer: Any, *, size: int) -> Tensor:
    """(out, in, k, k, k): the engine counts the first spatial axis fastest, torch the last."""
    return layer.kernel.reshape(size, size, size, CHANNELS_IN, CHANNELS_OUT).permute(4, 3, 2, 1, 0)


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 1), (5, 1, 2), (3, 2, 1), (2, 2, 0)])
def test_convolution_equals_conv3d_forward_and_backward(size: int, stride: int, padding: int) -> None:
    scene = Scene()
    layer = ME.MinkowskiConvolution(CHANNELS_IN, CHANNELS_OUT, kernel_size=size, stride=stride, dimension=3)
    result = layer(scene.sparse)
    dense = functional.conv3d(scene.volume(), dense_kernel(layer, size=size), stride=stride, padding=padding)
    expected = read(dense, result)
    torch.testing.assert_close(result.F, expected, **TOLERANCE)

    parts = (scene.features, layer.kernel)
    weight = torch.randn(result.F.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((result.F * weight).sum(), parts)
    theirs = torch.autograd.grad((expected * weight).sum(), parts)
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def test_a_strided_convolution_covers_every_occupied_cell_once() -> None:
    scene = Scene()
    layer = ME.MinkowskiConvolution(CHANNELS_IN, CHANNELS_OUT, kernel_size=2, stride=2, dimension=3)
    cells = layer(scene.sparse).C[:, 1:] + ORIGIN
    expected = {tuple(cell) for cell in (scene.index // 2 * 2).tolist()}
    assert sorted(map(tuple, cells.tolist())) == sorted(expected)


def test_a_transposed_convolution_returns_to_the_original_map_and_equals_conv_transpose3d() -> None:
    scene = Scene()
    down = ME.MinkowskiConvolution(CHANNELS_IN, CHANNELS_IN, kernel_size=2, stride=2, dimension=3)
    up = ME.MinkowskiConvolutionTranspose(CHANNELS_IN, CHANNELS_OUT, kernel_size=2, stride=2, dimension=3)
    middle = down(scene.sparse)
    result = up(middle)
    assert result.coordinate_map_key == scene.sparse.coordinate_map_key
    coarse = torch.zeros(CHANNELS_IN, SIZE // 2, SIZE // 2, SIZE // 2)
    x, y, z = ((middle.C[:, 1:].long() + ORIGIN) // 2).T
    coarse[:, x, y, z] = middle.F.detach().T
    kernel = up.kernel.reshape(2, 2, 2, CHANNELS_IN, CHANNELS_OUT).permute(3, 4, 2, 1, 0)
    dense = functional.conv_transpose3d(coarse[None], kernel, stride=2)
    torch.testing.assert_close(result.F, read(dense, result), **TOLERANCE)


def _max_of_present(scene: Scene, levels: int) -> Tensor:
    return functional.max_pool3d(scene.volume(empty=-torch.inf), 2**levels)


def _mean_of_present(scene: Scene, levels: int) -> Tensor:
    # Mean of the means of the present children, level by level.
    total, count = scene.volume(), scene.occupied[None, None].float()
    for _ in range(levels):
        total, count = (8 * functional.avg_pool3d(part, 2) for part in (total, count))
        total, count = total / count.clamp(min=1), (count > 0).float()
    return total


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize(
    ("layer", "reference"),
    [(ME.MinkowskiMaxPooling, _max_of_present), (ME.MinkowskiAvgPooling, _mean_of_present)],
    ids=["max", "mean"],
)
def test_pooling_counts_only_present_voxels(layer: Any, reference: Callable[[Scene, int], Tensor], levels: int) -> None:
    scene = Scene()
    result = scene.sparse
    for _ in range(levels):
        result = layer(kernel_size=2, stride=2, dimension=3)(result)
    expected = read(reference(scene, levels), result)
    torch.testing.assert_close(result.F, expected, **TOLERANCE)
    ours = torch.autograd.grad(result.F.sum(), scene.features)
    theirs = torch.autograd.grad(expected.sum(), scene.features)
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def test_a_field_is_floored_and_averaged() -> None:
    draw = torch.Generator().manual_seed(2)
    points = torch.randn(500, 3, generator=draw) * 2
    features = torch.randn(500, CHANNELS_IN, generator=draw)
    field = ME.TensorField(
        features,
        coordinates=functional.pad(points, (1, 0)),
        quantization_mode=ME.SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE,
    )
    result = field.sparse()
    rows: dict[tuple[int, ...], list[Tensor]] = {}
    for corner, feature in zip(points.floor().int().tolist(), features, strict=True):
        rows.setdefault(tuple(corner), []).append(feature)
    assert len(result.C) == len(rows)
    for (_, *corner), mean in zip(result.C.tolist(), result.F, strict=True):
        torch.testing.assert_close(mean, torch.stack(rows[tuple(corner)]).mean(dim=0), **TOLERANCE)
    torch.testing.assert_close(result.slice(field).F, result.F[field.inverse_mapping(result.coordinate_map_key).long()])
    assert (result.C[field.inverse_mapping(result.coordinate_map_key).long()][:, 1:] == points.floor()).all()
