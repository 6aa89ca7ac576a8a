"""What a place of the backbone should have been given, made from levels by hand; and how far off something is."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ditr.checks.forward_trace import strides_of
from ditr.checks.reference_levels import ReferenceLevel, levels, projected, stride_one
from ditr.data.batch import Batch
from ditr.model.esam import EsamSingleView
from ditr.model.injection import Projection
from ditr.model.res16unet import Branch
from ditr.spec.models import FusionSpec, Spec


def levels_of(batch: Batch, *, spec: Spec) -> dict[int, ReferenceLevel]:
    """By stride, every level that a spec which adds something to the backbone pools."""
    assert spec.read_features is not None, "a spec with fusion and without features does not load"
    finest = stride_one(batch, voxel_size_m=spec.model.voxel_size_m, sampling=spec.read_features.sampling)
    pooling = spec.fusion.injection.pooling if spec.fusion.injection is not None else "mean"
    return levels(finest, up_to=strides_of(spec.fusion)[-1], pooling=pooling)


def projection_of(model: EsamSingleView, branch: Branch, stride: int) -> Projection:
    """The layer that is there for this place, by its name in the model."""
    if branch == "stem":
        assert model.stem is not None, "the spec has a stem"
        return model.stem.projection
    assert model.injection is not None, "the spec has an injection"
    return cast(Projection, model.injection.projections[f"stride{stride}"])


def expected_added(
    model: EsamSingleView, branch: Branch, stride: int, by_hand: dict[int, ReferenceLevel], *, fusion: FusionSpec
) -> ReferenceLevel:
    """What is to be added there; the projection is the model's own, in the mode it is in."""
    layer, injection = projection_of(model, branch, stride), fusion.injection
    if branch == "stem" or injection is None or injection.order == "pool_then_project":
        return projected(by_hand[stride], layer)
    return levels(projected(by_hand[1], layer), up_to=stride, pooling=injection.pooling)[stride]


def relative_error(found: Tensor, expected: ReferenceLevel, *, corners: Tensor) -> float:
    """Largest difference over the largest expected value; infinite where shapes or voxels differ, or not finite.

    Parameters
    ----------
    found: (V, C), its rows on ``corners``.
    corners: (V, 4), as a sparse tensor's.
    """
    rows, here = expected.rows(corners)
    if not bool(here.all()) or found.shape != (len(rows), expected.features.shape[1]):
        return float("inf")
    if not bool(torch.isfinite(found).all()):
        return float("inf")
    scale = expected.features.abs().max().clamp(min=1e-12)
    return float((found - expected.features[rows]).abs().max() / scale)


def right_in_another_order(found: Tensor, expected: ReferenceLevel) -> bool:
    """Whether the rows hold what they should, but not where they should."""
    if found.shape != expected.features.shape:
        return False
    ours, theirs = found.norm(dim=1).sort().values, expected.features.norm(dim=1).sort().values
    return bool(torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5))
