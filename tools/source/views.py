"""Two views of each picture whose patches correspond, off by a few pixels and in other colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from ditr.spec.entries import VitEntry

SIZE = (420, 560)
"""What the source sees of a picture, in pixels."""
DIRECTIONS = 8
_FLAT = 0.01
"""Gradient in a patch, mean over its pixels, that noise alone can make."""
_TO_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """B pictures seen twice through windows of R x C patches."""

    first: Tensor
    """(B, 3, H, W), normalised."""
    second: Tensor
    edges: Tensor
    """(2B, R, C, DIRECTIONS) directions of edges in the patches of the first views, then of the second."""
    shift: tuple[int, int]
    """Patch (i, j) of the second view shows what (i, j) + shift of the first does."""

    def common(self, maps_first: Tensor, maps_second: Tensor) -> tuple[Tensor, Tensor]:
        """The parts of (B, R, C, D) maps of the two views that show the same places."""
        (a, b), (c, d) = (_common(self.shift[k], maps_first.shape[k + 1]) for k in (0, 1))
        return maps_first[:, a, c], maps_second[:, b, d]


def as_seen(pictures: np.ndarray, *, device: torch.device, batch: int = 64) -> Tensor:
    """(n, 3, 420, 560) uint8 on the device: the pictures resized as the source resizes them."""
    small = []
    for start in range(0, len(pictures), batch):
        pixels = torch.from_numpy(pictures[start : start + batch]).to(device).permute(0, 3, 1, 2).float()
        pixels = interpolate(pixels, size=SIZE, mode="bilinear", antialias=True, align_corners=False)
        small.append(pixels.round().clamp(0, 255).byte())
    return torch.cat(small)


def draw_pairs(
    seen: Tensor,
    *,
    batch: int,
    window: tuple[int, int],
    max_shift: int,
    entry: VitEntry,
    numbers: torch.Generator,
    generator: torch.Generator,
) -> Pairs:
    """Random pictures of ``seen`` (n, 3, 420, 560), random windows at the source's own scale, random colours.

    The windows are not turned, stretched or blurred: direction and period are what textures consist of. A mirror image
    is another texture, so both views of a picture are mirrored or none. The second view's patches are shifted against
    the first's by up to half a patch, so that where in a patch a pattern begins tells nothing. ``numbers`` (on the CPU)
    draws places, ``generator`` (on the pictures' device) colours.
    """
    shift = tuple(int(torch.randint(-max_shift, max_shift + 1, (), generator=numbers)) for _ in window)
    picture = torch.randint(len(seen), (batch, 1, 1), generator=numbers).to(seen.device)
    mirrored = (torch.rand(batch, 1, generator=numbers) < 0.5).to(seen.device)
    first, second = zip(
        *(_spans(SIZE[k], window[k] * entry.patch, shift[k], entry.patch, batch, numbers) for k in (0, 1)), strict=True
    )
    views, edges = [], []
    for rows, columns in (first, second):
        columns = torch.where(mirrored, SIZE[1] - 1 - columns.to(seen.device), columns.to(seen.device))
        crop = seen[picture, :, rows.to(seen.device)[:, :, None], columns[:, None, :]]  # (B, H, W, 3)
        pixels = crop.permute(0, 3, 1, 2).float() / 255
        views.append(_normalised(_jittered(pixels, generator), entry))
        edges.append(edge_directions(pixels, patch=entry.patch))
    return Pairs(first=views[0], second=views[1], edges=torch.cat(edges), shift=(shift[0], shift[1]))


def edge_directions(pixels: Tensor, *, patch: int) -> Tensor:
    """(B, R, C, DIRECTIONS) histogram of the brightness gradient's direction in each patch of (B, 3, H, W) in 0..1.

    Weighted by the gradient's length and of unit norm, but for patches without gradients, which stay near 0
    (reference: HOG, Dalal and Triggs 2005; as a target of masked patches, MaskFeat, Wei et al. 2022).
    """
    grey = torch.einsum("c,bchw->bhw", torch.tensor(_TO_GREY, device=pixels.device), pixels)[:, None]
    grey = pad(grey, (1, 1, 1, 1), mode="replicate")
    across = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2]
    down = grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
    bins = torch.arange(DIRECTIONS, device=pixels.device).reshape(1, -1, 1, 1)
    place = torch.atan2(down, across) / torch.pi * DIRECTIONS  # a direction and its opposite are one
    away = (place - bins + DIRECTIONS / 2).remainder(DIRECTIONS) - DIRECTIONS / 2
    votes = (1 - away.abs()).clamp(min=0) * torch.hypot(across, down)
    histogram = avg_pool2d(votes, patch).permute(0, 2, 3, 1)
    unit: Tensor = histogram / (histogram.norm(dim=-1, keepdim=True) + _FLAT)
    return unit


def _spans(
    extent: int, length: int, shift: int, patch: int, batch: int, numbers: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(B, length) pixels of both windows along one axis."""
    half = patch // 2
    away = shift * patch + torch.randint(-half, half, (batch,), generator=numbers)
    low, high = (-away).clamp(min=0), extent - length - away.clamp(min=0)
    start = low + (torch.rand(batch, generator=numbers) * (high - low + 1)).long()
    along = torch.arange(length)
    return start[:, None] + along, (start + away)[:, None] + along


def _common(shift: int, count: int) -> tuple[slice, slice]:
    return slice(max(0, shift), min(count, count + shift)), slice(max(0, -shift), min(count, count - shift))


def _jittered(x: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in 0..1 under another light: hue, saturation, white balance, contrast, gamma, noise."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(x), *shape, device=x.device, generator=generator)

    grey = torch.tensor(_TO_GREY, device=x.device)[None, None].expand(len(x), 3, 3)
    saturation = uniform(0, 1.4, 1, 1) * (uniform(0, 1, 1, 1) > 0.2)
    mix = _hue(uniform(-0.8, 0.8, 1, 1)) * saturation + grey * (1 - saturation)
    x = torch.einsum("bij,bjhw->bihw", mix, x) * uniform(0.85, 1.15, 3, 1, 1)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * uniform(0.6, 1.4, 1, 1, 1) + mean * uniform(0.6, 1.4, 1, 1, 1)
    x = x.clamp(0.001, 1) ** uniform(0.7, 1.4, 1, 1, 1)
    noise = torch.randn(x.shape, device=x.device, generator=generator)
    return (x + noise * uniform(0, 0.02, 1, 1, 1)).clamp(0, 1)


def _hue(angle: Tensor) -> Tensor:
    """(B, 3, 3) turns by angles (B, 1, 1) about the axis of greys."""
    turn = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=angle.device) / 3**0.5
    cosine = torch.cos(angle)
    return cosine * torch.eye(3, device=angle.device) + (1 - cosine) / 3 + torch.sin(angle) * turn


def _normalised(x: Tensor, entry: VitEntry) -> Tensor:
    mean, std = (torch.tensor(value, device=x.device).reshape(3, 1, 1) for value in (entry.mean, entry.std))
    return (x - mean) / std
