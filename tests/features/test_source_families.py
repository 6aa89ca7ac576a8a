"""Tokens, their order and their geometry, of every family, by small random models."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import layer_norm

from ditr.errors import Code, DitrError
from ditr.features.sources import FeatureSource, load_source
from ditr.features.timm_models import import_timm
from ditr.geometry.sampling import sample_map
from ditr.spec.entries import VitEntry
from ditr.spec.feature_maps import map_covers, map_shape
from ditr.spec.models import FeatureSpec, FileWeights
from tests.reference.tiny_sources import RN50, VITS, random_model, without_blocks

CPU = torch.device("cpu")
FAMILIES = pytest.mark.parametrize("entry", VITS.values(), ids=VITS.keys())
Dtype = Literal["float32", "bfloat16", "float16"]


def spec_of(entry: VitEntry, *, grid: tuple[int, int] = (3, 5), **fields: Any) -> FeatureSpec:
    size = (grid[0] * entry.patch, grid[1] * entry.patch)
    return FeatureSpec(source="tiny", input_size=size, **fields)


def images(entry: VitEntry, *, count: int = 2, grid: tuple[int, int] = (3, 5)) -> np.ndarray:
    """Images of just the input size, which the resize leaves as they are."""
    shape = (count, grid[0] * entry.patch, grid[1] * entry.patch, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def loaded(model: Any, *, spec: FeatureSpec, entry: VitEntry, folder: Path) -> FeatureSource:
    """The source as a user gets it of these weights: from a file."""
    save_file(model.state_dict(), folder / "tiny.safetensors")
    weights = FileWeights(kind="file", path=str(folder / "tiny.safetensors"))
    return load_source(spec.model_copy(update={"weights": weights}), entry=entry, device=CPU)


def normalised(pixels: np.ndarray, entry: VitEntry) -> np.ndarray:
    return (pixels / 255 - np.array(entry.mean)) / np.array(entry.std)


@FAMILIES
def test_a_token_is_the_normed_projection_of_its_own_patch_where_blocks_add_nothing(
    entry: VitEntry, tmp_path: Path
) -> None:
    model = without_blocks(random_model(entry))
    seen = images(entry)
    maps = loaded(model, spec=spec_of(entry), entry=entry, folder=tmp_path).encode(seen)
    patch, kernel, offset = entry.patch, model.patch_embed.proj.weight, model.patch_embed.proj.bias
    expected = torch.empty(2, 32, 3, 5)
    for image, row, column in np.ndindex(2, 3, 5):
        rows, columns = slice(row * patch, (row + 1) * patch), slice(column * patch, (column + 1) * patch)
        pixels = torch.from_numpy(normalised(seen[image, rows, columns], entry)).float()
        token = torch.einsum("hwc,ochw->o", pixels, kernel) + (0 if offset is None else offset)
        token = layer_norm(token, (32,), model.norm.weight, model.norm.bias, model.norm.eps)
        expected[image, :, row, column] = token.detach()
    assert maps.dtype == torch.float16
    torch.testing.assert_close(maps.float(), expected, atol=2e-3, rtol=2e-3)


@FAMILIES
def test_register_and_class_tokens_are_in_no_map(entry: VitEntry, tmp_path: Path) -> None:
    model = without_blocks(random_model(entry))
    before = loaded(model, spec=spec_of(entry), entry=entry, folder=tmp_path).encode(images(entry))
    prefix = [token for name in ("cls_token", "reg_token") if (token := getattr(model, name, None)) is not None]
    assert sum(token.shape[1] for token in prefix) == entry.prefix_tokens
    with torch.no_grad():
        for token in prefix:
            token.add_(100)
    after = loaded(model, spec=spec_of(entry), entry=entry, folder=tmp_path).encode(images(entry))
    assert torch.equal(before, after)


@FAMILIES
def test_tokens_are_those_of_forward_features_after_the_prefix(entry: VitEntry, tmp_path: Path) -> None:
    model = random_model(entry)
    source = loaded(model, spec=spec_of(entry), entry=entry, folder=tmp_path)
    pixels = torch.from_numpy(normalised(images(entry), entry)).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        tokens = model.forward_features(pixels)[:, entry.prefix_tokens :]
    assert tokens.shape == (2, 3 * 5, 32)
    expected = tokens.reshape(2, 3, 5, 32).permute(0, 3, 1, 2)
    torch.testing.assert_close(source.encode(images(entry)).float(), expected, atol=4e-3, rtol=2e-3)


@FAMILIES
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_changed_patch_changes_its_own_token_most(entry: VitEntry, dtype: Dtype) -> None:
    source = load_source(spec_of(entry, grid=(6, 9), dtype=dtype), entry=entry, device=CPU)
    before = images(entry, count=1, grid=(6, 9))
    for row, column in ((0, 0), (0, 8), (5, 0), (4, 7)):
        after = before.copy()
        part = (
            0,
            slice(row * entry.patch, (row + 1) * entry.patch),
            slice(column * entry.patch, (column + 1) * entry.patch),
        )
        after[part] = 255 - after[part]
        change = (source.encode(after).float() - source.encode(before).float()).norm(dim=1)[0]
        assert divmod(int(change.argmax()), 9) == (row, column)


@FAMILIES
def test_layers_are_normed_and_concatenated_in_the_order_of_the_spec(entry: VitEntry, tmp_path: Path) -> None:
    model = random_model(entry)
    outputs: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    pixels = torch.from_numpy(normalised(images(entry), entry)).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        model.forward_features(pixels)
        normed = [model.norm(output)[:, entry.prefix_tokens :] for output in outputs]
    spec = spec_of(entry, layers=(-1, 0, 1))
    maps = loaded(model, spec=spec, entry=entry, folder=tmp_path).encode(images(entry))
    assert maps.shape == (2, *map_shape(spec, entry)) == (2, 96, 3, 5)
    expected = torch.cat([normed[2], normed[0], normed[1]], dim=2).reshape(2, 3, 5, 96).permute(0, 3, 1, 2)
    torch.testing.assert_close(maps.float(), expected, atol=4e-3, rtol=2e-3)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((3,), "there is no layer 3: tiny has 3 layers, 0 to 2, or -3 to -1"),
        ((-4, -1), "there is no layer -4"),
        ((2, -1), "layer -1 is taken twice"),
    ],
)
def test_a_layer_that_the_model_lacks_is_an_error(layers: tuple[int, ...], message: str) -> None:
    with pytest.raises(DitrError, match=message) as raised:
        load_source(spec_of(VITS["dinov2"], layers=layers), entry=VITS["dinov2"], device=CPU)
    assert raised.value.code == Code.FEATURES


@FAMILIES
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_of_all_weights_and_near_the_full_one(entry: VitEntry, dtype: Dtype, tmp_path: Path) -> None:
    model = random_model(entry)
    full = loaded(model, spec=spec_of(entry), entry=entry, folder=tmp_path).encode(images(entry)).float()
    source = loaded(model, spec=spec_of(entry, dtype=dtype), entry=entry, folder=tmp_path)
    assert {value.dtype for value in source.model.parameters()} == {getattr(torch, dtype)}
    half = source.encode(images(entry)).float()
    assert (half - full).norm() / full.norm() < (0.05 if dtype == "bfloat16" else 0.008)


def test_rotary_positions_stay_exact_in_half_precision() -> None:
    entry = VITS["dinov3"]
    full, half = (
        load_source(spec_of(entry, dtype=dtype), entry=entry, device=CPU).model for dtype in ("float32", "bfloat16")
    )
    assert torch.equal(half.rope.get_embed(shape=[30, 40]), full.rope.get_embed(shape=[30, 40]))


@FAMILIES
def test_padded_patches_are_those_of_the_image_and_points_read_their_own(entry: VitEntry, tmp_path: Path) -> None:
    # An image of 2 x 4 patches and a bit, on a canvas of 3 x 5: whole patches have the tokens that they would have in
    # a whole image, and every pixel reads the token of its own patch by the canvas.
    model, patch = without_blocks(random_model(entry)), entry.patch
    whole = images(entry, count=1)
    image = whole[:, : patch * 2 + 3, : patch * 4 + 8]
    spec = spec_of(entry, resize="pad")
    source = loaded(model, spec=spec, entry=entry, folder=tmp_path)
    padded = source.encode(image)[0]
    cut = loaded(model, spec=spec_of(entry), entry=entry, folder=tmp_path).encode(whole)[0]
    torch.testing.assert_close(padded[:, :2, :4], cut[:, :2, :4])
    assert not torch.allclose(padded[:, 2, :4].float(), cut[:, 2, :4].float(), atol=0.1)
    height, width = image.shape[1:3]
    pixels = source.prepared(image)[0]
    assert not pixels[:, height:].any()
    assert not pixels[:, :, width:].any()
    covers = map_covers(spec, entry)
    assert covers == (3 * patch, 5 * patch)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    read = sample_map(padded, torch.from_numpy(np.stack([u, v], -1).reshape(-1, 2)), map_hw=covers, mode="nearest")
    own = padded[:, v.reshape(-1) // patch, u.reshape(-1) // patch].T.float()
    assert torch.equal(read, own)


def test_an_image_that_is_larger_than_the_canvas_is_an_error_with_the_size_to_set() -> None:
    entry = VITS["dinov2"]
    source = load_source(spec_of(entry, grid=(34, 45), resize="pad"), entry=entry, device=CPU)
    with pytest.raises(DitrError, match="480x640 does not fit into the canvas of 476x630") as raised:
        source.prepared(np.zeros((1, 480, 640, 3), dtype=np.uint8))
    assert "[490, 644]" in raised.value.fix


@pytest.fixture(scope="module")
def rn50() -> FeatureSource:
    return load_source(FeatureSpec(source="rn50", input_size=(96, 128)), entry=RN50, device=CPU)


def test_the_convolutional_source_is_timms_map_at_its_stride(rn50: FeatureSource) -> None:
    timms = import_timm().create_model("resnet50_clip", features_only=True, out_indices=(2,)).eval()
    own = {re.sub(r"^(stem|stages)\.", r"\1_", name): value for name, value in rn50.model.state_dict().items()}
    timms.load_state_dict({name: own[name] for name in timms.state_dict()})
    seen = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    pixels = (torch.from_numpy(seen).float() / 255 - torch.tensor(RN50.mean)) / torch.tensor(RN50.std)
    with torch.no_grad():
        (expected,) = timms(pixels.permute(0, 3, 1, 2))
    maps = rn50.encode(seen)
    assert maps.shape == (2, 512, 12, 16)
    torch.testing.assert_close(maps, expected.half(), atol=1e-3, rtol=2e-3)


def test_the_convolutional_source_changes_most_where_the_image_changes(rn50: FeatureSource) -> None:
    before = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)
    after = before.copy()
    after[0, 24:32, 88:96] = 255 - after[0, 24:32, 88:96]
    change = (rn50.encode(after).float() - rn50.encode(before).float()).norm(dim=1)[0]
    assert divmod(int(change.argmax()), 16) == (3, 11)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_convolutional_source_in_half_precision_is_near_the_full_one(rn50: FeatureSource, dtype: Dtype) -> None:
    model, spec = copy.deepcopy(rn50.model), rn50.spec.model_copy(update={"dtype": dtype})
    half = FeatureSource(model, spec=spec, entry=RN50, device=CPU)
    seen = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)
    full = rn50.encode(seen).float()
    assert (half.encode(seen).float() - full).norm() / full.norm() < (0.05 if dtype == "bfloat16" else 0.008)
