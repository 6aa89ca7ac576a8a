"""The same maps at a GPU's full speed: what a source's model is replaced by while maps are extracted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import gelu, layer_norm, linear, pad, scaled_dot_product_attention

from ditr.features.sources import FeatureSource
from ditr.features.timm_models import import_timm
from ditr.spec.entries import VitEntry

COMPILED_FROM = 20_000
"""Images from which on compiling the norms saves more time than it takes: 0.24 ms an image of ViT-L, and 3 to 5 s."""
_ATTENTION = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_ALIGNED = 8
"""Elements to whose multiples rows are filled up: matrix products of other lengths take slow kernels."""
Norm = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def make_fast(source: FeatureSource, *, images: int) -> str:
    """Replaces the source's model by its fastest form for so many images, and names it: plain or fused.

    On the CPU the model stays as it is, and so do those whose parts the fused form does not know: compiling them as
    they are gains 5 %, which takes tens of thousands of images to pay. The fused form is of bfloat16 alone: with layer
    scales, which can be tiny, folded into them, weights would leave float16's range.
    """
    if source.device.type != "cuda" or source.dtype != torch.bfloat16 or not isinstance(source.entry, VitEntry):
        return "plain"
    if not is_standard(source.model):
        return "plain"
    norm: Norm = torch.compile(shifted_norm, dynamic=False) if images >= COMPILED_FROM else shifted_norm
    source.model = FusedVit(source.model, norm=norm)
    return "fused"


def is_standard(model: Any) -> bool:
    """Whether ``FusedVit`` knows every part that the model has."""
    timm = import_timm()
    transformer = timm.models.vision_transformer
    if type(model) is not transformer.VisionTransformer or not isinstance(model.norm_pre, nn.Identity):
        return False
    return type(model.patch_embed.norm) is nn.Identity and all(_is_standard_block(block) for block in model.blocks)


def shifted_norm(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm of x + shift."""
    return layer_norm(x + shift, weight.shape, weight, bias, eps)


class FusedVit(nn.Module):
    """A timm VisionTransformer for inference that moves fewer bytes; ``forward_intermediates`` gives what timm's does.

    Layer scales are folded into the weights before them. Each branch is added to the tokens by the matrix product that
    computes it, which leaves no place for its bias: biases are constants of a layer, so they are summed beside
    and added where tokens are normalised. GELU is part of the product before it; on a GPU in bfloat16 it is there the
    tanh formula, 5e-4 from the error function's at most. What it gives is as far from float32 as timm's bfloat16 is
    (docs/performance.md).
    """

    def __init__(self, model: Any, *, norm: Norm = shifted_norm) -> None:
        super().__init__()
        self._model = model
        self._norm = norm
        self._blocks: list[_Block] = []
        shift = torch.zeros_like(model.norm.weight, dtype=torch.float32)
        for block in model.blocks:
            self._blocks.append(_Block(block, shift=shift))
            shift = self._blocks[-1].sum_of_biases
        self._patch: int = model.patch_embed.patch_size[0]
        self._start: Tensor | None = None
        self._embedding = _aligned(model.patch_embed.proj.weight.flatten(1))

    def forward_intermediates(
        self,
        pixels: Tensor,
        *,
        indices: Sequence[int],
        norm: bool,
        stop_early: bool,
        output_fmt: str,
        intermediates_only: bool,
    ) -> list[Tensor]:
        """Maps (B, C, Hp, Wp) after the layers ``indices``, ascending; the other arguments as sources give them."""
        assert (norm, stop_early, output_fmt, intermediates_only) == (True, True, "NCHW", True)
        model = self._model
        tokens = self._embedded(pixels)
        batch, count, channels = tokens.shape
        x = tokens.view(batch * count, channels)
        found = []
        with sdpa_kernel(_ATTENTION, set_priority=True):
            for index in range(max(indices) + 1):
                block = self._blocks[index]
                block.add_to(x, batch=batch, norm=self._norm)
                if index in indices:
                    final = self._norm(
                        x, block.shift_after.to(x.dtype), model.norm.weight, model.norm.bias, model.norm.eps
                    )
                    found.append(self._as_map(final.view(batch, count, channels), pixels))
        return found

    def _embedded(self, pixels: Tensor) -> Tensor:
        """Tokens (B, T, C) before the first layer."""
        batch, colours, height, width = pixels.shape
        rows, columns, patch = height // self._patch, width // self._patch, self._patch
        patches = pixels.new_zeros(batch * rows * columns, self._embedding.shape[1])
        cut = pixels.view(batch, colours, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
        patches[:, : colours * patch**2].view(batch, rows, columns, colours, patch, patch).copy_(cut)
        embedded = linear(patches, self._embedding, self._model.patch_embed.proj.bias)
        prefix, channels = self._model.num_prefix_tokens, embedded.shape[1]
        if self._start is None or self._start.shape[1] != rows * columns + prefix:
            # What the tokens are without an image: positions, class and register tokens.
            self._start = self._model._pos_embed(pixels.new_zeros(1, rows, columns, channels))
        tokens = pixels.new_empty(batch, rows * columns + prefix, channels)
        tokens[:, :prefix] = self._start[:, :prefix]
        torch.add(embedded.view(batch, -1, channels), self._start[:, prefix:], out=tokens[:, prefix:])
        return tokens

    def _as_map(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        rows, columns = self._model.patch_embed.dynamic_feat_size(tuple(pixels.shape[2:]))
        patches = tokens[:, self._model.num_prefix_tokens :]
        return patches.transpose(1, 2).reshape(len(tokens), -1, rows, columns)


class _Block:
    """One layer's weights as it uses them."""

    def __init__(self, block: Any, *, shift: Tensor) -> None:
        self.heads: int = block.attn.num_heads
        self.scale: float = block.attn.scale
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.qkv, self.hidden = block.attn.qkv, block.mlp.fc1
        self.proj, bias = _scaled(block.attn.proj, block.ls1)
        dtype = self.proj.dtype
        self.shift_before = shift.to(dtype)
        self.shift_between = (shift + bias).to(dtype)
        self.out, last = _scaled(block.mlp.fc2, block.ls2)
        self.sum_of_biases = shift + bias + last
        self.shift_after = self.sum_of_biases.to(dtype)

    def add_to(self, x: Tensor, *, batch: int, norm: Norm) -> None:
        """Adds the layer's two branches to the tokens x (B * T, C) in place, but for their biases."""
        normed = norm(x, self.shift_before, self.norm1.weight, self.norm1.bias, self.norm1.eps)
        qkv = self.qkv(normed).view(batch, len(x) // batch, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T, C / heads)
        attended = scaled_dot_product_attention(q, k, v, scale=self.scale)
        x.addmm_(attended.transpose(1, 2).reshape(len(x), -1), self.proj)
        normed = norm(x, self.shift_between, self.norm2.weight, self.norm2.bias, self.norm2.eps)
        x.addmm_(_linear_gelu(normed, self.hidden), self.out)


def _scaled(layer: nn.Linear, scale: Any) -> tuple[Tensor, Tensor]:
    """The transposed weight (in, out) in the layer's dtype and the bias in float32, both times a layer scale."""
    by = torch.ones_like(layer.bias, dtype=torch.float32) if isinstance(scale, nn.Identity) else scale.gamma.float()
    return (layer.weight.float() * by[:, None]).to(layer.weight.dtype).t(), layer.bias.float() * by


def _aligned(weight: Tensor) -> Tensor:
    """The weight (out, in) with zeros behind its rows up to a multiple that matrix products like."""
    return pad(weight, (0, -weight.shape[1] % _ALIGNED))


def _linear_gelu(x: Tensor, layer: nn.Linear) -> Tensor:
    if x.is_cuda and x.dtype == torch.bfloat16:
        fused: Tensor = torch._addmm_activation(layer.bias, x, layer.weight.t(), use_gelu=True)
        return fused
    return gelu(linear(x, layer.weight, layer.bias))


def _is_standard_block(block: Any) -> bool:
    timm = import_timm()
    transformer = timm.models.vision_transformer
    if type(block) is not transformer.Block or type(block.attn) is not timm.layers.Attention:
        return False
    unused = (block.attn.q_norm, block.attn.k_norm, block.attn.norm, block.mlp.norm)
    scales = all(type(scale) in (nn.Identity, transformer.LayerScale) for scale in (block.ls1, block.ls2))
    plain = block.attn.gate is None and all(type(part) is nn.Identity for part in unused)
    mlp = type(block.mlp) is timm.layers.Mlp and _is_exact_gelu(block.mlp.act)
    return scales and plain and mlp and isinstance(block.norm1, nn.LayerNorm)


def _is_exact_gelu(activation: nn.Module) -> bool:
    exact = type(activation) is nn.GELU and activation.approximate == "none"
    return exact or type(activation) is import_timm().layers.GELU
