from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, relu

from ditr.model.attention import PointGroups, attention_mask
from ditr.model.output import Layout
from ditr.model.padding import Padding
from ditr.model.query_decoder import ScanNetMixQueryDecoder, select_queries
from ditr.model.segments import Segments
from ditr.spec.models import DecoderSpec
from tests.reference.padded_outputs import CPU, masks_of


def layout_of(*, points: int, superpoints: int, queries: int) -> Layout:
    """Of one sample."""
    return Layout(*(Padding.of([count], device=CPU) for count in (points, superpoints, queries)))


def test_size_and_names_are_the_reference_s() -> None:
    decoder = ScanNetMixQueryDecoder(DecoderSpec(), in_channels=96)
    assert sum(p.numel() for p in decoder.parameters()) == 3_576_779
    layers: dict[str, tuple[int, ...]] = {
        "input_proj.0": (256, 96),
        "query_proj.0": (256, 96),
        "query_proj.2": (256, 256),
        "out_cls.0": (256, 256),
        "out_cls.2": (2, 256),
        "x_mask.0": (256, 96),
        "x_mask.2": (256, 256),
        "x_pts_mask.0": (256, 99),
        "x_pts_mask.2": (256, 256),
        "out_sem": (201, 256),
        "input_proj.1": (256,),
        "out_norm": (256,),
    }
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(3):
        for kind in ("cross", "self"):
            attention = f"{kind}_attn_layers.{layer}"
            expected[f"{attention}.attn.in_proj_weight"] = (768, 256)
            expected[f"{attention}.attn.in_proj_bias"] = (768,)
            layers[f"{attention}.attn.out_proj"] = (256, 256)
            layers[f"{attention}.norm"] = (256,)
        layers[f"ffn_layers.{layer}.net.0"] = (1024, 256)
        layers[f"ffn_layers.{layer}.net.3"] = (256, 1024)
        layers[f"ffn_layers.{layer}.norm"] = (256,)
    for name, shape in layers.items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    assert {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()} == expected


@pytest.mark.parametrize("seed", range(5))
def test_point_level_mask_is_that_of_a_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    superpoints = torch.cat([torch.arange(6), torch.randint(0, 6, (34,), generator=generator)])
    weights = 2 * torch.rand(40, generator=generator)
    logits = torch.randn(5, 40, generator=generator) - 1
    logits[0] = -1.0  # a query whose mask is empty
    logits[1] = torch.where(superpoints == 2, 0.0, -1.0)  # sigmoid is 0.5 exactly: not blocked
    groups = PointGroups(superpoints=Segments(of_row=superpoints, count=6), weights=weights)
    layout = layout_of(points=40, superpoints=6, queries=5)
    blocked = attention_mask(masks_of(logits[None], level="point"), groups, layout)[0]

    for query in range(5):
        outside = [1 / (1 + math.exp(-logit)) < 0.5 for logit in logits[query].tolist()]
        if all(outside):
            outside = [False] * 40
        shares = []
        for index in range(6):
            members = (superpoints == index).nonzero().squeeze(1).tolist()
            shares.append(sum(weights[i].item() * outside[i] for i in members) / len(members))
        # The loop adds in another order: what lies this close to the smallest share is the smallest.
        expected = [share > 0.5 and share > min(shares) + 1e-6 for share in shares]
        assert blocked[query].tolist() == expected
    assert not blocked[0].any()
    assert not blocked.all(dim=1).any()


def test_superpoint_level_mask_never_blocks_a_whole_row() -> None:
    logits = torch.tensor([[-1.0, 2.0, 0.0], [-1.0, -2.0, -0.1]], requires_grad=True)
    groups = PointGroups(superpoints=Segments(of_row=torch.arange(3), count=3), weights=torch.ones(3))
    layout = layout_of(points=3, superpoints=3, queries=2)
    blocked = attention_mask(masks_of(logits[None], level="superpoint"), groups, layout)
    assert blocked.tolist() == [[[True, False, False], [False, False, False]]]
    assert not blocked.requires_grad


@pytest.mark.parametrize("levels", [("superpoint", "superpoint", "point", "point"), ("point", "superpoint")])
def test_forward_is_the_written_out_decoder(levels: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    spec = DecoderSpec(width=8, heads=2, feedforward=12, mask_levels=levels)
    decoder = ScanNetMixQueryDecoder(spec, in_channels=5)
    for parameter in decoder.parameters():  # norms and biases too
        nn.init.normal_(parameter, std=0.4)
    superpoint_features, point_features = torch.randn(7, 5), torch.randn(50, 8)
    superpoints = torch.cat([torch.arange(7), torch.randint(0, 7, (43,))])
    groups = PointGroups(superpoints=Segments(of_row=superpoints, count=7), weights=2 * torch.rand(50))
    queries, layout = torch.tensor([4, 0, 2]), layout_of(points=50, superpoints=7, queries=3)
    out = decoder(superpoint_features[None], point_features[None], queries=queries[None], groups=groups, layout=layout)

    written = WrittenOut(decoder.state_dict(), heads=2)
    x = written.mlp("query_proj", superpoint_features[queries])
    keys = relu(written.norm("input_proj.1", written.linear("input_proj.0", superpoint_features)))
    features = {
        "superpoint": written.mlp("x_mask", superpoint_features),
        "point": written.mlp("x_pts_mask", point_features),
    }
    for index, (head, level) in enumerate(zip(out.heads, levels, strict=True)):
        if index > 0:
            x = written.layer(index - 1, x, keys, attention_mask(out.heads[index - 1].masks, groups, layout)[0])
        normed = written.norm("out_norm", x)
        assert head.masks.level == level
        torch.testing.assert_close(head.class_logits[0], written.mlp("out_cls", normed), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(head.masks.logits()[0], normed @ features[level].T, atol=1e-5, rtol=1e-4)
    semantic = written.linear("out_sem", written.norm("out_norm", x))
    torch.testing.assert_close(out.semantic_logits[0], semantic, atol=1e-5, rtol=1e-4)


class WrittenOut:
    """The decoder from its weights, one attention head at a time."""

    def __init__(self, state: dict[str, Tensor], *, heads: int) -> None:
        self.state = state
        self.heads = heads

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def mlp(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.2", relu(self.linear(f"{name}.0", x)))

    def norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def attend(self, name: str, x: Tensor, keys: Tensor, blocked: Tensor) -> Tensor:
        weight = self.state[f"{name}.attn.in_proj_weight"].chunk(3)
        bias = self.state[f"{name}.attn.in_proj_bias"].chunk(3)
        q, k, v = (rows @ w.T + b for rows, w, b in zip((x, keys, keys), weight, bias, strict=True))
        parts = []
        for a, b, c in zip(*(t.chunk(self.heads, dim=1) for t in (q, k, v)), strict=True):
            scores = (a @ b.T / math.sqrt(a.shape[1])).masked_fill(blocked, -torch.inf)
            parts.append(scores.softmax(dim=1) @ c)
        return self.norm(f"{name}.norm", x + self.linear(f"{name}.attn.out_proj", torch.cat(parts, dim=1)))

    def layer(self, index: int, x: Tensor, keys: Tensor, blocked: Tensor) -> Tensor:
        x = self.attend(f"cross_attn_layers.{index}", x, keys, blocked)
        x = self.attend(f"self_attn_layers.{index}", x, x, torch.zeros(len(x), len(x), dtype=torch.bool))
        name = f"ffn_layers.{index}"
        hidden = self.linear(f"{name}.net.3", gelu(self.linear(f"{name}.net.0", x)))
        return self.norm(f"{name}.norm", x + hidden)


def test_queries_are_a_seeded_share_of_the_superpoints() -> None:
    sizes = []
    for seed in range(200):
        queries = select_queries(40, fraction=0.5, seed=seed)
        assert torch.equal(queries, select_queries(40, fraction=0.5, seed=seed))
        assert len(set(queries.tolist())) == len(queries)
        assert set(queries.tolist()) <= set(range(40))
        sizes.append(len(queries))
    assert min(sizes) in (20, 21)
    assert max(sizes) == 40
    assert 29 < sum(sizes) / len(sizes) < 32, "the share is uniform between 0.5 and 1"
    first = {int(select_queries(40, fraction=0.5, seed=seed)[0]) for seed in range(200)}
    assert len(first) > 30, "which superpoints are drawn depends on the seed"
    assert select_queries(1, fraction=0.5, seed=0).tolist() == [0]
    assert sorted(select_queries(5, fraction=1.0, seed=0).tolist()) == [0, 1, 2, 3, 4]
