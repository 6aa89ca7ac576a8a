"""Small random models of every family of 2D sources, made with timm directly."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ditr.features.timm_models import import_timm
from ditr.spec.entries import ConvEntry, SeededWeights, VitEntry

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SEEDED = SeededWeights(kind="seeded", seed=5)


def _vit(timm: str, *, patch: int, prefix: int, colours: Any) -> VitEntry:
    mean, std = colours
    return VitEntry(
        kind="vit",
        timm=timm,
        timm_args={"embed_dim": 32, "depth": 3, "num_heads": 2},
        channels=32,
        patch=patch,
        prefix_tokens=prefix,
        mean=mean,
        std=std,
        weights=SEEDED,
        licence="none",
    )


VITS = {
    "dinov2": _vit("vit_small_patch14_dinov2", patch=14, prefix=1, colours=IMAGENET),
    "dinov2_reg4": _vit("vit_small_patch14_reg4_dinov2", patch=14, prefix=5, colours=IMAGENET),
    "dinov3": _vit("vit_small_patch16_dinov3", patch=16, prefix=5, colours=IMAGENET),
    "siglip2": _vit("vit_base_patch16_siglip_512", patch=16, prefix=0, colours=HALF),
}
"""Of every family of vision transformers in the registry, at a width of 32 and a depth of 3."""

RN50 = ConvEntry(
    kind="conv",
    timm="resnet50_clip",
    channels=512,
    patch=8,
    mean=CLIP[0],
    std=CLIP[1],
    weights=SEEDED,
    licence="none",
)


def timms_own(entry: VitEntry, *, seed: int) -> Any:
    """The model as timm draws it after that seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = import_timm().create_model(
            entry.timm, num_classes=0, dynamic_img_size=True, **entry.timm_args
        )
    return model.eval()


def random_model(entry: VitEntry, *, seed: int = 1) -> Any:
    """A model whose every weight acts: timm's own start all but switches blocks off, by layer scales of 1e-5."""
    model = timms_own(entry, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for value in model.parameters():
        nn.init.normal_(value, std=0.3 if value.ndim == 1 else 0.15, generator=generator)
    return model


def without_blocks(model: Any) -> Any:
    """The model with blocks that add nothing and without positions: tokens are normed projections of their patches."""
    with torch.no_grad():
        for block in model.blocks:
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.zero_()
                layer.bias.zero_()
        if model.pos_embed is not None:
            model.pos_embed.zero_()
    return model
