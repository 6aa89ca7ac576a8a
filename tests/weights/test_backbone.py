"""The table of the backbone's names and shapes is that of the model, at every size, and leads back to it."""

from __future__ import annotations

import pytest

from ditr.model.res16unet import Res16UNet
from ditr.spec.models import BackboneSpec
from ditr.weights.backbone import COUNTER, backbone_in, backbone_shapes
from tests.reference import esam_checkpoint

MINI = BackboneSpec(planes=(16, 32, 48, 64, 64, 48, 32, 32), layers=(1,) * 8, stem_channels=16)
ODD = BackboneSpec(planes=(3, 5, 5, 7, 11, 12, 14, 10), layers=(1, 2, 1, 3, 1, 2, 1, 4), stem_channels=5)
UNCHANGED = BackboneSpec(planes=(4,) * 8, layers=(2,) * 8, stem_channels=4)


@pytest.mark.parametrize("spec", [BackboneSpec(), MINI, ODD, UNCHANGED], ids=["full", "mini", "odd", "equal widths"])
def test_the_table_is_the_models_state_dict(spec: BackboneSpec) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in Res16UNet(spec).state_dict().items()}
    assert list(backbone_shapes(spec).items()) == [(name, tuple(tensor.shape)) for name, tensor in state.items()]
    assert {name for name, tensor in state.items() if not tensor.is_floating_point()} == {
        name for name in state if name.endswith(COUNTER)
    }
    assert backbone_in(backbone_shapes(spec)) == spec


def test_the_full_size_is_that_of_the_published_weights() -> None:
    published = {f"backbone.{name}": shape for name, shape in esam_checkpoint.backbone_shapes().items()}
    assert backbone_shapes(BackboneSpec()) == published
    assert len(published) == 372


def test_no_size_is_told_without_the_norms() -> None:
    shapes = backbone_shapes(MINI)
    assert backbone_in(shapes | {"backbone.block3.0.norm1.bn.weight": (48, 1)}) is None
    assert backbone_in({name: shape for name, shape in shapes.items() if "block8" not in name}) is None
    assert backbone_in({}) is None
