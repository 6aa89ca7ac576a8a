from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d, grid_sample

from ditr.geometry.sampling import Mode, sample_map


def bilinear_by_hand(tokens: np.ndarray, u: float, v: float, *, height: int, width: int) -> np.ndarray:
    """One pixel at a time, from the definition: token centres are integers, beyond them the border token holds."""
    _, rows, columns = tokens.shape
    x = min(max((u + 0.5) * columns / width - 0.5, 0.0), columns - 1.0)
    y = min(max((v + 0.5) * rows / height - 0.5, 0.0), rows - 1.0)
    left, top = math.floor(x), math.floor(y)
    right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
    a, b = x - left, y - top
    upper = (1 - a) * tokens[:, top, left] + a * tokens[:, top, right]
    lower = (1 - a) * tokens[:, bottom, left] + a * tokens[:, bottom, right]
    return np.asarray((1 - b) * upper + b * lower)


def every_pixel(height: int, width: int) -> torch.Tensor:
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([u.flatten(), v.flatten()], dim=1).float()


def test_every_pixel_reads_back_its_own_token_from_a_painted_image() -> None:
    # Each 16x16 cell of the image codes its own token in two channels; a source that averages the pixels of a patch
    # keeps the code, so nearest sampling has to give every one of the 307,200 pixels the number of its own cell.
    rows, columns = torch.meshgrid(torch.arange(480) // 16, torch.arange(640) // 16, indexing="ij")
    image = torch.stack([rows, columns]).float()
    tokens = avg_pool2d(image[None], 16)[0].half()
    assert tokens.shape == (2, 30, 40)
    read = sample_map(tokens, every_pixel(480, 640), map_hw=(480, 640), mode="nearest")
    assert torch.equal(read, image.flatten(1).T)


def test_a_token_centre_reads_that_token_alone_in_both_modes() -> None:
    tokens = torch.randn(3, 30, 40)
    rows, columns = torch.meshgrid(torch.arange(30), torch.arange(40), indexing="ij")
    centres = torch.stack([columns.flatten(), rows.flatten()], dim=1) * 16 + 7.5
    expected = tokens.flatten(1).T
    for mode in ("nearest", "bilinear"):
        read = sample_map(tokens, centres, map_hw=(480, 640), mode=mode)  # type: ignore[arg-type]
        torch.testing.assert_close(read, expected, atol=1e-4, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    height=st.integers(9, 60),
    width=st.integers(9, 60),
    seed=st.integers(0, 2**16),
)
def test_bilinear_equals_the_definition(rows: int, columns: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(2, rows, columns)).astype(np.float32)
    uv = rng.uniform(-0.5, [width - 0.5, height - 0.5], (25, 2)).astype(np.float32)
    read = sample_map(torch.from_numpy(tokens), torch.from_numpy(uv), map_hw=(height, width), mode="bilinear")
    expected = np.stack([bilinear_by_hand(tokens, u, v, height=height, width=width) for u, v in uv])
    np.testing.assert_allclose(read.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_equals_torch_s_grid_sample_on_full_and_padded_maps(mode: Mode) -> None:
    generator = torch.Generator().manual_seed(0)
    uv = torch.rand(500, 2, generator=generator) * torch.tensor([640.0, 480.0]) - 0.5
    for shape, (height, width) in (((5, 30, 40), (480, 640)), ((5, 35, 46), (490, 644))):
        tokens = torch.randn(shape, generator=generator)
        grid = 2 * (uv + 0.5) / torch.tensor([width, height]) - 1
        wanted = grid_sample(tokens[None], grid[None, None], mode=mode, padding_mode="border", align_corners=False)
        read = sample_map(tokens, uv, map_hw=(height, width), mode=mode)
        torch.testing.assert_close(read, wanted[0, :, 0].T, atol=1e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), shift=st.integers(-3, 3))
def test_a_linear_ramp_is_read_exactly_between_the_outermost_centres(seed: int, shift: int) -> None:
    # A map that holds its own image coordinates gives each point back its pixel: any half-pixel slip would show.
    rows, columns, height, width = 6, 8, 96, 160
    centre_u = (torch.arange(columns) + 0.5) * width / columns - 0.5
    centre_v = (torch.arange(rows) + 0.5) * height / rows - 0.5
    tokens = torch.stack([centre_u.expand(rows, columns), centre_v[:, None].expand(rows, columns)]) + shift
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([centre_u[0], centre_v[0]]), torch.tensor([centre_u[-1], centre_v[-1]])
    uv = low + (high - low) * torch.rand(50, 2, generator=generator)
    read = sample_map(tokens, uv, map_hw=(height, width), mode="bilinear")
    torch.testing.assert_close(read, uv + shift, atol=1e-3, rtol=0)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_the_image_border_reads_the_border_token(mode: str) -> None:
    tokens = torch.arange(12.0).reshape(1, 3, 4)
    corners = torch.tensor([[-0.5, -0.5], [39.5, -0.5], [-0.5, 29.5], [39.5, 29.5]])
    read = sample_map(tokens, corners, map_hw=(30, 40), mode=mode)  # type: ignore[arg-type]
    assert read[:, 0].tolist() == [0.0, 3.0, 8.0, 11.0]


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_half_precision_maps_give_float32_rows(mode: str) -> None:
    tokens = torch.randn(5, 30, 40, generator=torch.Generator().manual_seed(0)).half()
    uv = torch.rand(100, 2, generator=torch.Generator().manual_seed(1)) * 400
    read = sample_map(tokens, uv, map_hw=(480, 640), mode=mode)  # type: ignore[arg-type]
    assert read.dtype == torch.float32
    assert read.shape == (100, 5)
    assert torch.equal(read, sample_map(tokens.float(), uv, map_hw=(480, 640), mode=mode))  # type: ignore[arg-type]
