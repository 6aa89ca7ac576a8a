"""Pool and decoder one sample at a time, over the model's own parameters: what the padded ones are held against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from ditr.data.batch import Batch, Sample
from ditr.model.esam import EsamSingleView
from ditr.model.masks import Level
from ditr.model.query_decoder import ScanNetMixQueryDecoder, select_queries
from ditr.model.superpoint_pool import GeoAwarePooling
from ditr.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class LoopHead:
    """One prediction head of one sample: Q queries, positions P = S superpoints or N points."""

    class_logits: Tensor
    """(Q, 2): thing, no object."""
    masks: Tensor
    """(Q, P) logits."""
    level: Level


@dataclass(frozen=True, kw_only=True)
class LoopOutput:
    """All heads of one sample, in the order of the decoder; the last one is the prediction."""

    heads: tuple[LoopHead, ...]
    semantic_logits: Tensor
    """(Q, 201), from the last head's queries."""
    query_superpoints: Tensor
    """(Q,) int64: the superpoint each query came from."""


def loop_outputs(model: EsamSingleView, features: Tensor, batch: Batch) -> list[LoopOutput]:
    """What the model makes of (N, C) features of all points of the batch."""
    parts = torch.split(features, [len(sample.xyz) for sample in batch])
    return [_of_sample(model, sample, of_points) for sample, of_points in zip(batch, parts, strict=True)]


def _of_sample(model: EsamSingleView, sample: Sample, of_points: Tensor) -> LoopOutput:
    count = sample.num_superpoints
    if model.training:
        queries = select_queries(count, fraction=model.query_fraction, seed=derive_seed(sample.seed, "queries"))
    else:
        queries = torch.arange(count)
    xyz = sample.xyz.to(of_points.dtype)
    of_superpoints, weights = loop_pool(model.pool, of_points, xyz, sample.superpoints, count=count)
    return loop_decoder(
        model.decoder,
        of_superpoints,
        torch.cat([xyz, of_points], dim=1),
        queries=queries,
        superpoints=sample.superpoints,
        weights=weights,
    )


def loop_pool(
    pool: GeoAwarePooling, features: Tensor, xyz: Tensor, superpoints: Tensor, *, count: int
) -> tuple[Tensor, Tensor]:
    """(count, C) superpoints and (N,) weights of the points."""
    centre = _mean(xyz, superpoints, count=count)
    extent = _maximum(xyz, superpoints, count=count) + _maximum(-xyz, superpoints, count=count)
    side = extent.amax(dim=1, keepdim=True)
    shape = pool.pts_proj1((xyz - centre[superpoints]) / (side[superpoints] + 0.01))
    code = _maximum(shape, superpoints, count=count)
    weights = 2 * pool.pts_proj2(torch.cat([shape, code[superpoints]], dim=1))
    return _mean(features * weights, superpoints, count=count) + code, weights.squeeze(1)


def loop_decoder(
    decoder: ScanNetMixQueryDecoder,
    superpoint_features: Tensor,
    point_features: Tensor,
    *,
    queries: Tensor,
    superpoints: Tensor,
    weights: Tensor,
) -> LoopOutput:
    """(S, C) superpoints, (N, 3 + C) points with their continuous coordinates, (Q,) superpoint of each query."""
    keys = decoder.input_proj(superpoint_features)
    features = {"superpoint": decoder.x_mask(superpoint_features), "point": decoder.x_pts_mask(point_features)}

    def head(x: Tensor, level: Level) -> LoopHead:
        x = decoder.out_norm(x)
        return LoopHead(class_logits=decoder.out_cls(x), masks=x @ features[level].T, level=level)

    x = decoder.query_proj(superpoint_features.index_select(0, queries))
    heads = [head(x, decoder.mask_levels[0])]
    layers = zip(decoder.cross_attn_layers, decoder.self_attn_layers, decoder.ffn_layers, strict=True)
    for (cross, own, feedforward), level in zip(layers, decoder.mask_levels[1:], strict=True):
        blocked = loop_attention_mask(heads[-1], superpoints=superpoints, weights=weights, count=len(keys))
        x = _norm(cross, x + cross.attn(x[None], keys[None], keys[None], attn_mask=blocked, need_weights=False)[0][0])
        x = _norm(own, x + own.attn(x[None], x[None], x[None], need_weights=False)[0][0])
        x = feedforward(x)
        heads.append(head(x, level))
    return LoopOutput(
        heads=tuple(heads), semantic_logits=decoder.out_sem(decoder.out_norm(x)), query_superpoints=queries
    )


@torch.no_grad()
def loop_attention_mask(head: LoopHead, *, superpoints: Tensor, weights: Tensor, count: int) -> Tensor:
    """(Q, S) bool, true where a query must not look: outside its own mask, unless that leaves it nothing."""
    blocked = head.masks.sigmoid() < 0.5
    blocked = blocked & ~blocked.all(dim=1, keepdim=True)
    if head.level == "superpoint":
        return blocked
    share = _mean((blocked * weights).T, superpoints, count=count).T
    return (share > 0.5) & (share != share.amin(dim=1, keepdim=True))


def _norm(layer: torch.nn.Module, x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], layer.norm.weight, layer.norm.bias)  # type: ignore[union-attr, arg-type]


def _mean(values: Tensor, segments: Tensor, *, count: int) -> Tensor:
    total = values.new_zeros(count, values.shape[1]).index_add(0, segments, values)
    return total / segments.bincount(minlength=count).unsqueeze(1)


def _maximum(values: Tensor, segments: Tensor, *, count: int) -> Tensor:
    index = segments.unsqueeze(1).expand_as(values)
    return values.new_full((count, values.shape[1]), -torch.inf).scatter_reduce(0, index, values, reduce="amax")
