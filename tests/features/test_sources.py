from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ditr.errors import Code, DitrError
from ditr.features.sources import FeatureSource, load_source, require_source, source_flops
from ditr.features.timm_models import check, create
from ditr.geometry.sampling import sample_map
from ditr.spec.entries import ConvEntry, PrecomputedEntry, SeededWeights, VitEntry
from ditr.spec.models import FeatureSpec, HubWeights
from ditr.spec.registry import Registry
from tests.reference.tiny_sources import RN50, VITS, timms_own

CPU = torch.device("cpu")
SEEDED = SeededWeights(kind="seeded", seed=5)
TINY = VITS["dinov2_reg4"]
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
SPEC = FeatureSpec(source="tiny", input_size=(84, 112))
LARGE = FeatureSpec(source="tiny", input_size=(420, 560))


def entry_with(**changes: object) -> VitEntry:
    return TINY.model_copy(update=changes)


class PatchMeans(nn.Module):
    """A source whose tokens are the means of its own patches."""

    blocks = (None,)

    def forward_intermediates(self, x: Tensor, **_options: object) -> list[Tensor]:
        return [avg_pool2d(x, 14)]


def test_tokens_lie_where_the_pixels_they_were_made_of_lie() -> None:
    # The whole way: a 640x480 image whose 16x16 cells code their row and column goes through the resize to 420x560
    # and the source, and every pixel of the image reads the code of its own cell.
    rows, columns = np.divmod(np.arange(480 * 640), 640)
    cell = np.stack([rows // 16, columns // 16], axis=1)
    image = np.concatenate([cell * [8, 6], np.zeros((len(cell), 1))], axis=1).astype(np.uint8).reshape(480, 640, 3)
    entry = entry_with(channels=3)
    tokens = FeatureSource(PatchMeans(), spec=LARGE, entry=entry, device=CPU).encode(image[None])[0]
    assert tokens.shape == (3, 30, 40)
    uv = torch.from_numpy(np.stack([columns, rows], axis=1))
    read = sample_map(tokens.half(), uv, map_hw=(480, 640), mode="nearest").numpy()
    colours = (read * entry.std + np.array(entry.mean)) * 255
    np.testing.assert_array_equal(np.rint(colours[:, :2] / [8, 6]), cell)


def test_the_embedded_source_changes_most_where_the_image_changes() -> None:
    entry = Registry().features("vit_mini14_reg4")
    before = np.random.default_rng(1).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    after = before.copy()
    after[16 * 11 : 16 * 12, 16 * 27 : 16 * 28] = 255 - after[16 * 11 : 16 * 12, 16 * 27 : 16 * 28]
    maps = load_source(LARGE, entry=entry, device=CPU).encode(np.stack([before, after]))
    change = (maps[1] - maps[0]).norm(dim=0)
    assert divmod(int(change.argmax()), 40) == (11, 27)


def test_tokens_are_the_last_layer_with_the_final_norm_without_prefix_tokens() -> None:
    source = load_source(SPEC, entry=TINY, device=CPU)
    maps = source.encode(IMAGES)
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255
    pixels = nn.functional.interpolate(pixels, size=(84, 112), mode="bilinear", antialias=True)
    pixels = (pixels - torch.tensor(TINY.mean)[:, None, None]) / torch.tensor(TINY.std)[:, None, None]
    with torch.no_grad():
        (expected,) = timms_own(TINY, seed=5).forward_intermediates(
            pixels, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
    assert maps.shape == (2, 32, 6, 8)
    assert not maps.requires_grad
    torch.testing.assert_close(maps, expected.half())


def test_seeded_weights_repeat_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again = load_source(SPEC, entry=TINY, device=CPU), load_source(SPEC, entry=TINY, device=CPU)
    assert torch.equal(torch.rand(3), expected)
    other = load_source(SPEC, entry=entry_with(weights=SeededWeights(kind="seeded", seed=6)), device=CPU)
    assert torch.equal(first.encode(IMAGES), again.encode(IMAGES))
    assert first.weights_digest() == again.weights_digest() != other.weights_digest()
    elsewhere = FeatureSpec(source="tiny", input_size=(42, 56), dtype="bfloat16")  # positions are resampled otherwise
    assert load_source(elsewhere, entry=TINY, device=CPU).weights_digest() == first.weights_digest()


@pytest.mark.parametrize("name", Registry().names("features"))
def test_every_registered_entry_describes_its_model(name: str) -> None:
    entry = Registry().features(name)
    if isinstance(entry, PrecomputedEntry):
        return  # of no model
    with torch.device("meta"):
        check(create(entry), entry, published=True)
    assert entry.sizes or entry.timm_args, "a published model's entry recommends sizes"
    for height, width in entry.sizes:
        assert (height % entry.patch, width % entry.patch) == (0, 0)
        assert height * 4 == width * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 64}, "says channels: 64 .* has channels: 32"),
        ({"patch": 16}, "says patch: 16 .* has patch: 14"),
        ({"prefix_tokens": 1}, "says prefix_tokens: 1 .* has prefix_tokens: 5"),
        ({"timm_args": {**TINY.timm_args, "fc_norm": 1}}, "its tokens are not normalised"),
        ({"timm": "vit_smal_patch14_reg4_dinov2"}, "no model vit_smal_patch14_reg4_dinov2"),
        ({"timm": "vit_small_patch14_reg4_dinov2.lvd14m"}, "no model vit_small_patch14_reg4_dinov2.lvd14m"),
    ],
    ids=["channels", "patch", "prefix", "norm", "name", "tag"],
)
def test_an_entry_that_does_not_fit_its_model_is_an_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DitrError, match=message) as raised:
        load_source(SPEC, entry=entry_with(**changes), device=CPU)
    assert raised.value.code == Code.REGISTRY


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (RN50.model_copy(update={"patch": 12}), r"has maps at strides \[2, 4, 8, 16, 32\], none at patch: 12"),
        (RN50.model_copy(update={"channels": 256}), "says channels: 256 .* has channels: 512"),
        (RN50.model_copy(update={"timm": TINY.timm}), "is no convolutional network"),
        (RN50.model_copy(update={"timm_args": {"nothing": 1}}), "cannot make it as a model of kind: conv"),
        (entry_with(timm=RN50.timm, timm_args={}), "cannot make it as a model of kind: vit"),
        (entry_with(timm_args={"embed_dim": 30, "num_heads": 4}), "cannot make it"),
    ],
    ids=["stride", "channels", "a transformer", "arguments", "no transformer", "heads"],
)
def test_an_entry_of_another_kind_of_model_is_an_error(entry: VitEntry | ConvEntry, message: str) -> None:
    with pytest.raises(DitrError, match=message) as raised:
        require_source(SPEC, entry=entry)
    assert raised.value.code == Code.REGISTRY


def test_random_weights_may_see_images_normalised_in_any_way_and_trained_ones_may_not() -> None:
    half = entry_with(mean=(0.5, 0.5, 0.5))
    load_source(SPEC, entry=half, device=CPU)
    with pytest.raises(DitrError, match=r"says mean: \(0.5, 0.5, 0.5\).*which has mean: \(0.485, 0.456, 0.406\)"):
        require_source(SPEC.model_copy(update={"weights": HubWeights(kind="hub")}), entry=half)


@pytest.mark.parametrize("family", ["dinov2", "dinov2_reg4", "dinov3", "siglip2"])
@pytest.mark.parametrize(("layers", "blocks"), [((-1,), 3), ((0, 1), 2)])
def test_operations_of_a_map_are_those_of_the_layers_up_to_the_last_that_is_taken(
    family: str, layers: tuple[int, ...], blocks: int
) -> None:
    """Of each layer's four projections, of queries by keys and weights by values, and of the patches; by hand."""
    entry, width, rows, columns = VITS[family], 32, 6, 8
    spec = FeatureSpec(source="tiny", input_size=(rows * entry.patch, columns * entry.patch), layers=layers)
    patches = rows * columns
    tokens = patches + entry.prefix_tokens
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    assert source_flops(spec, entry=entry) == 2 * (patches * 3 * entry.patch**2 * width + blocks * block)


def test_operations_of_a_convolutional_map_grow_with_its_area() -> None:
    small, large = (FeatureSpec(source="tiny", input_size=size) for size in ((64, 96), (128, 192)))
    assert source_flops(large, entry=RN50) == 4 * source_flops(small, entry=RN50) > 0
