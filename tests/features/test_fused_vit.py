from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ditr.features.fused_vit import FusedVit, is_standard, make_fast
from ditr.features.sources import FeatureSource, load_source
from ditr.spec.entries import VitEntry
from ditr.spec.models import FeatureSpec
from ditr.spec.registry import Registry
from tests.reference.tiny_sources import VITS

CPU = torch.device("cpu")
ENTRY = VITS["dinov2_reg4"]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)


def lively(spec: FeatureSpec, entry: VitEntry = ENTRY) -> FeatureSource:
    """A source in which every weight matters: timm starts with scales of 1e-5 and biases of zero."""
    source = load_source(spec, entry=entry, device=CPU)
    generator = torch.Generator().manual_seed(1)
    for name, value in source.model.named_parameters():
        if name.endswith(("gamma", "bias")):
            value.data = (0.3 * torch.randn(value.shape, generator=generator)).to(value.dtype)
    return source


@pytest.mark.parametrize("layers", [(-1,), (2, 0)], ids=["last", "two"])
@pytest.mark.parametrize("resize", ["resize", "pad"])
def test_the_fused_form_gives_the_same_maps(layers: tuple[int, ...], resize: Any) -> None:
    source = lively(FeatureSpec(source="tiny", input_size=(56, 84), layers=layers, resize=resize))
    pixels = source.prepared(IMAGES)
    expected = source._intermediates(pixels)
    plain = source.model
    source.model = FusedVit(plain)
    with torch.inference_mode():
        found = source._intermediates(pixels)
    for fused, timms in zip(found, expected, strict=True):
        assert fused.std() > 0.1
        torch.testing.assert_close(fused, timms, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_the_fused_form_is_as_close_to_float32_as_timms() -> None:
    exact = lively(FeatureSpec(source="tiny", input_size=(56, 84)))
    half = lively(FeatureSpec(source="tiny", input_size=(56, 84), dtype="bfloat16"))
    truth = exact.maps(exact.prepared(IMAGES)).float()

    def error(source: FeatureSource) -> float:
        return float((source.encode(IMAGES).float() - truth).norm() / truth.norm())

    of_timm = error(half)
    half.model = FusedVit(half.model)
    assert error(half) < 1.2 * of_timm < 0.05


VITS = [name for name in Registry().names("features") if isinstance(Registry().features(name), VitEntry)]


@pytest.mark.parametrize("name", VITS)
def test_every_registered_architecture_is_reproduced_or_left_alone(name: str) -> None:
    registered = Registry().features(name)
    assert isinstance(registered, VitEntry)
    small = {"timm_args": {"embed_dim": 32, "depth": 2, "num_heads": 2}, "channels": 32, "weights": ENTRY.weights}
    entry = registered.model_copy(update=small)
    side = 2 * entry.patch
    source = lively(FeatureSpec(source=name, input_size=(side, 2 * side)), entry)
    if not is_standard(source.model):
        assert any(part in name for part in ("vitg", "dinov3", "siglip2"))
        return
    expected = source.maps(source.prepared(IMAGES))
    source.model = FusedVit(source.model)
    torch.testing.assert_close(source.encode(IMAGES), expected, rtol=2e-3, atol=2e-3)


def test_on_the_cpu_nothing_is_replaced() -> None:
    source = load_source(FeatureSpec(source="tiny", input_size=(42, 56)), entry=ENTRY, device=CPU)
    model = source.model
    assert make_fast(source, images=10**6) == "plain"
    assert source.model is model
