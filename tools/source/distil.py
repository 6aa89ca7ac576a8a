"""Self-distillation of a small ViT without labels: a student predicts what a slowly following teacher says of the same
places in another view, from a window in which a part is masked.

References: DINO (Caron et al. 2021), iBOT (Zhou et al. 2022) for the masked patches, SwAV (Caron et al. 2020) for the
balanced assignment of patches to prototypes, which is what keeps the answers from becoming all alike.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from ditr.features.timm_models import create
from ditr.seeds import derive_seed
from ditr.spec.entries import VitEntry
from tools.source.filters import set_filters
from tools.source.views import DIRECTIONS, SIZE, Pairs, draw_pairs


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How long and how hard."""

    seed: int = 0
    steps: int = 5000
    batch: int = 128
    """Pictures a step; each is seen twice."""
    window: tuple[int, int] = (16, 16)
    """Patches of a view."""
    max_shift: int = 4
    """Patches between the windows of the two views."""
    prototypes: int = 2048
    hidden: int = 512
    bottleneck: int = 128
    student_temperature: float = 0.1
    teacher_temperature: float = 0.03
    masked: float = 0.5
    """Upper end of the share of a student's view that is masked; the lower is 0."""
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.04
    warmup: float = 0.08
    """Share of the steps."""
    momentum: float = 0.992
    """Of the teacher at the start; it approaches 1 at the end."""
    distillation: float = 1.0
    """Weight of the cross-entropy with the teacher."""
    edges: float = 1.0
    """Weight of the squared error in the directions of edges."""
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    layer_scale: float = 1.0
    """At the start, in place of timm's 1e-5, which is made for deep networks."""


class Network(nn.Module):
    """The ViT and the head that gives each of its tokens scores over the prototypes."""

    def __init__(self, entry: VitEntry, how: Distillation) -> None:
        super().__init__()
        self.vit: Any = create(entry)  # timm's modules have no types
        for name, parameter in self.vit.named_parameters():
            if name.endswith(".gamma"):
                nn.init.constant_(parameter, how.layer_scale)
        set_filters(self.vit.get_parameter("patch_embed.proj.weight"))
        self.mask_token = nn.Parameter(torch.zeros(entry.channels))
        self.head = nn.Sequential(
            nn.Linear(entry.channels, how.hidden),
            nn.GELU(),
            nn.Linear(how.hidden, how.hidden),
            nn.GELU(),
            nn.Linear(how.hidden, how.bottleneck),
            nn.BatchNorm1d(how.bottleneck, affine=False, track_running_stats=False),
        )
        self.edges = nn.Linear(entry.channels, DIRECTIONS)
        self.prototypes = nn.Parameter(torch.randn(how.prototypes, how.bottleneck))

    def forward(self, images: Tensor, corners: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, R, C, D) normalised tokens of windows whose first patch has the place ``corners`` (B, 2)."""
        x = self.vit.patch_embed(images)  # (B, R, C, D)
        if mask is not None:
            x = torch.where(mask[..., None], self.mask_token.to(x.dtype), x)
        rows = corners[:, :1] + torch.arange(x.shape[1], device=x.device)
        columns = corners[:, 1:] + torch.arange(x.shape[2], device=x.device)
        x = x + self._places()[rows[:, :, None], columns[:, None, :]]
        prefix = [token.expand(len(x), -1, -1) for token in (self.vit.cls_token, self.vit.reg_token)]
        tokens = self.vit.norm(self.vit.blocks(torch.cat([*prefix, x.flatten(1, 2)], dim=1)))
        patches: Tensor = tokens[:, self.vit.num_prefix_tokens :].reshape(x.shape)
        return patches

    def scores(self, tokens: Tensor) -> Tensor:
        """(N, K) cosines of tokens (N, D) with the prototypes.

        The head ends in a standardisation over the batch: without it, tokens that have become alike stay so, since
        equal scores are balanced too.
        """
        return normalize(self.head(tokens), dim=-1) @ normalize(self.prototypes, dim=-1).T

    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in a whole picture."""
        rows, columns = self.vit.patch_embed.patch_size
        return SIZE[0] // rows, SIZE[1] // columns

    def _places(self) -> Tensor:
        """(30, 40, D) position embedding of a whole picture, as timm makes it."""
        from timm.layers.pos_embed import resample_abs_pos_embed

        places = resample_abs_pos_embed(
            self.vit.pos_embed, new_size=list(self.grid()), old_size=list(self.vit.patch_embed.grid_size),
            num_prefix_tokens=0,
        )  # fmt: skip
        grid: Tensor = places.reshape(*self.grid(), -1)
        return grid


def initial(entry: VitEntry, how: Distillation) -> Network:
    """The network that the training starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(how.seed, "source", "init"))
        return Network(entry, how)


def distil(
    seen: Tensor,
    *,
    entry: VitEntry,
    how: Distillation,
    each: Callable[[dict[str, float], Network], None],
    every: int,
) -> Network:
    """The teacher after ``how.steps`` steps on pictures ``seen`` (n, 3, 420, 560) uint8, on their device.

    ``each`` gets the numbers of a step and the teacher at it, ``every`` so many steps and after the last.
    """
    student = initial(entry, how).to(seen.device)
    teacher = copy.deepcopy(student).requires_grad_(False)
    generator = torch.Generator(seen.device).manual_seed(derive_seed(how.seed, "source", "views"))
    numbers = torch.Generator().manual_seed(derive_seed(how.seed, "source", "windows"))
    optimizer = torch.optim.AdamW(
        _groups(student, how.weight_decay), betas=(0.9, 0.98), fused=seen.device.type == "cuda"
    )
    began = time.monotonic()
    for step in range(how.steps):
        rate = _learning_rate(how, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        pairs = draw_pairs(
            seen,
            batch=how.batch,
            window=how.window,
            max_shift=how.max_shift,
            entry=entry,
            numbers=numbers,
            generator=generator,
        )
        losses = _loss(student, teacher, pairs, how, generator)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(student.parameters(), how.clip)
        optimizer.step()
        _follow(teacher, student, 1 - (1 - how.momentum) * _cosine(step / how.steps))
        if step % every == 0 or step == how.steps - 1:
            row = {"step": step, **{name: value.item() for name, value in losses.items()}, "gradient": norm.item()}
            each(row | {"learning_rate": rate, "wall_s": time.monotonic() - began}, teacher)
    return teacher


def _loss(
    student: Network, teacher: Network, pairs: Pairs, how: Distillation, generator: torch.Generator
) -> dict[str, Tensor]:
    """The loss and its terms.

    The cross-entropy is over the common places of both views, each predicted from the other; the error in the
    directions of edges is over all places, masked or not.
    """
    images = torch.cat([pairs.first, pairs.second])
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
        with torch.no_grad():
            seen = teacher(images, _corners(teacher, images, how, generator))
        guessed = student(
            images, _corners(student, images, how, generator), _mask(len(images), how, images.device, generator)
        )
        (s_first, s_second), (t_first, t_second) = guessed.chunk(2), seen.chunk(2)
        s_first, t_second = pairs.common(s_first, t_second)
        t_first, s_second = pairs.common(t_first, s_second)
        scores = student.scores(torch.cat([s_first, s_second]).flatten(0, 2)).float()
        edges = student.edges(guessed).float()
        with torch.no_grad():
            said = teacher.scores(torch.cat([t_second, t_first]).flatten(0, 2)).float()
    targets = balanced(said / how.teacher_temperature)
    loss = -(targets * log_softmax(scores / how.student_temperature, dim=-1)).sum(dim=-1).mean()
    aside = (edges - pairs.edges).square().sum(dim=-1).mean()
    entropy = -(targets * targets.clamp(min=1e-12).log()).sum(dim=-1).mean()
    return {
        "loss": how.distillation * loss + how.edges * aside,
        "distillation": loss,
        "edges": aside,
        "target_entropy": entropy,
    }


@torch.no_grad()
def balanced(scores: Tensor, *, rounds: int = 3) -> Tensor:
    """(N, K) assignment of N tokens to K prototypes, rows sum to 1, every prototype used about alike (Sinkhorn)."""
    q = torch.exp(scores - scores.max())
    for _ in range(rounds):
        q = q / q.sum(dim=0, keepdim=True).clamp(min=1e-12)
        q = q / q.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return q


def _corners(network: Network, images: Tensor, how: Distillation, generator: torch.Generator) -> Tensor:
    """(B, 2) places of the windows, drawn apart from where they were cut: else a place alone would tell the answer."""
    free = torch.tensor([network.grid()[k] - how.window[k] + 1 for k in (0, 1)], device=images.device)
    return (torch.rand(len(images), 2, device=images.device, generator=generator) * free).long()


def _mask(batch: int, how: Distillation, device: torch.device, generator: torch.Generator) -> Tensor:
    """(B, R, C) bool in blocks of 2 x 2 patches, of each view another share."""
    rows, columns = how.window
    chance = torch.rand(batch, (rows + 1) // 2, (columns + 1) // 2, device=device, generator=generator)
    share = torch.rand(batch, 1, 1, device=device, generator=generator) * how.masked
    return (chance < share).repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :rows, :columns]


@torch.no_grad()
def _follow(teacher: Network, student: Network, momentum: float) -> None:
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)


def _learning_rate(how: Distillation, step: int) -> float:
    done = (step + 1) / how.steps
    if done < how.warmup:
        return how.learning_rate * done / how.warmup
    return how.learning_rate * max(0.01, _cosine((done - how.warmup) / (1 - how.warmup)))


def _cosine(done: float) -> float:
    """1 at 0, 0 at 1."""
    return (1 + math.cos(math.pi * done)) / 2


def _groups(network: Network, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; gains, biases, tokens and places do not."""
    named = [(name, p) for name, p in network.named_parameters()]
    decays = [p for name, p in named if p.ndim > 1 and not name.endswith(("token", "pos_embed"))]
    others = [p for name, p in named if p.ndim <= 1 or name.endswith(("token", "pos_embed"))]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
