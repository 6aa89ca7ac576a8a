"""Files in exactly the format of ESAM's and Mask3D's, at full size, set every entry of the model by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ditr.data.batch import Batch, Sample
from ditr.errors import DitrError
from ditr.model.esam import EsamSingleView
from ditr.spec.fusion import FusionSpec, InjectionSpec, StemSpec
from ditr.spec.models import BackboneSpec, ModelSpec
from ditr.weights.description import describe
from ditr.weights.loading import load_weights
from tests.reference.esam_checkpoint import (
    ALL_PARAMETERS,
    BACKBONE_ENTRIES,
    BACKBONE_PARAMETERS,
    State,
    in_spconv_layout,
    mask3d_left_overs,
    parameters,
    write_esam,
    write_lightning,
    write_mask3d,
)


@pytest.fixture(scope="module")
def esam(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, State]]:
    path = tmp_path_factory.mktemp("esam") / "epoch_128.pth"
    yield path, write_esam(path)
    path.unlink()


@pytest.fixture(scope="module")
def model() -> EsamSingleView:
    """Full size; every test sets what it asserts."""
    return EsamSingleView(
        ModelSpec(), fusion=FusionSpec(), feature_channels=None, sampling="bilinear", query_fraction=0.5
    )


@pytest.fixture(scope="module")
def small_state(build: Callable[[FusionSpec], EsamSingleView]) -> dict[str, Tensor]:
    state = build(FusionSpec()).state_dict()
    return {name: tensor + 1 for name, tensor in state.items() if name.startswith("backbone.")}


def is_set(model: EsamSingleView, state: dict[str, Tensor]) -> bool:
    loaded = model.state_dict()
    return all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_an_esam_file_sets_the_whole_model(esam: tuple[Path, State], model: EsamSingleView) -> None:
    path, state = esam
    report = load_weights(model, path, format="esam", whole=True)
    assert report.matched == len(state) == len(model.state_dict())
    assert (report.missing, report.unexpected, report.converted) == ((), (), {})
    assert {one.group: len(one.matched) for one in report.by_group} == {"backbone": 372, "pool": 13, "decoder": 78}
    assert is_set(model, state)
    assert sum(weight.numel() for weight in model.backbone.parameters()) == BACKBONE_PARAMETERS == 37_854_112
    assert sum(weight.numel() for weight in model.parameters()) == ALL_PARAMETERS == 41_459_787


def test_its_weights_run(esam: tuple[Path, State], model: EsamSingleView, make_sample: Callable[..., Sample]) -> None:
    load_weights(model, esam[0], format="esam")
    with torch.no_grad():
        output = model.eval()(Batch(samples=(make_sample(1, channels=None),)))
    head = output.samples[0].heads[-1]
    assert bool(torch.isfinite(head.masks).all())
    assert bool(torch.isfinite(head.class_logits).all())
    assert float(head.masks.std()) > 0


def test_a_mask3d_file_sets_the_372_entries_of_the_backbone(model: EsamSingleView, tmp_path: Path) -> None:
    state = write_mask3d(tmp_path / "mask3d_scannet200.pth", seed=7)
    report = load_weights(model, tmp_path / "mask3d_scannet200.pth", format="mask3d", entries=372)
    assert report.matched == BACKBONE_ENTRIES
    assert set(report.unexpected) == set(mask3d_left_overs(seed=0))
    assert len(report.missing) == 13 + 78
    assert is_set(model, {name: state[name] for name in state if name not in report.unexpected})


def test_an_esam_file_is_described(esam: tuple[Path, State]) -> None:
    described = describe(esam[0])
    assert (described.format, described.key_prefix, described.container) == ("esam", "", "torch")
    assert {one.group: one.parameters for one in described.groups} == {
        "backbone": BACKBONE_PARAMETERS,
        "pool": 28_896,
        "decoder": 3_576_779,
    }
    assert described.backbone == BackboneSpec()
    assert (described.refusal, described.not_finite, described.fusion) == (None, (), ())
    assert described.checked == "the checksums of its archive"


def test_a_lightning_file_needs_its_prefix(
    small_state: dict[str, Tensor], build: Callable[[FusionSpec], EsamSingleView], tmp_path: Path
) -> None:
    path = tmp_path / "last.ckpt"
    write_lightning(path, state=OrderedDict(small_state))
    described = describe(path)
    assert (described.format, described.key_prefix) == ("mask3d", "model.")
    small = build(FusionSpec())
    with pytest.raises(DitrError, match=r"model\.backbone\."):
        load_weights(small, path, format="mask3d")
    report = load_weights(small, path, format="mask3d", key_prefix="model.")
    assert report.matched == len(small_state)
    assert report.unexpected == ("criterion.empty_weight",)
    assert is_set(small, small_state)


def test_other_kernels_nan_and_fusion_are_described(
    small_state: dict[str, Tensor], build: Callable[[FusionSpec], EsamSingleView], tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    broken = in_spconv_layout(OrderedDict(small_state))
    broken["backbone.bn0.bn.bias"] = torch.full((5,), torch.nan)
    write_mask3d(path, state=broken)
    described = describe(path)
    assert described.refusal is not None
    assert "MinkowskiEngine's layout" in described.refusal.fix
    assert described.not_finite == ("backbone.bn0.bn.bias",)
    torch.save(build(FusionSpec(injection=InjectionSpec(scales=(4, 1)), stem=StemSpec())).state_dict(), path)
    described = describe(path)
    assert described.format == "ditr"
    assert described.fusion == ("injection of 12 channels at strides 4, 1", "stem fusion of 12 channels")
    torch.save({"model": {"unet.weight": torch.zeros(2)}, "step": 3}, path)
    described = describe(path)
    assert described.format is None
    assert "no tensors at the top or under state_dict" in described.reason


def test_the_generators_count_is_the_published_one(esam: tuple[Path, State]) -> None:
    assert parameters(esam[1]) == 41_459_787
