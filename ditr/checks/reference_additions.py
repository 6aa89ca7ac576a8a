"""What a place of the backbone should have been given, made from levels by hand; and how far off something is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from ditr.checks.reference_levels import ReferenceLevel, levels, projected, stride_one
from ditr.data.batch import Batch
from ditr.model.esam import EsamSingleView
from ditr.model.injection import Injection, Projection, StemFusion
from ditr.model.voxel_features import Pooling
from ditr.spec.fusion import FusionSpec
from ditr.spec.fusion_part import Branch
from ditr.spec.models import Spec


def levels_of(batch: Batch, *, spec: Spec, up_to: int, pooling: Pooling) -> dict[int, ReferenceLevel]:
    """By stride, from 1 to ``up_to``."""
    assert spec.read_features is not None, "a spec with fusion and without features does not load"
    finest = stride_one(batch, voxel_size_m=spec.model.voxel_size_m, sampling=spec.read_features.sampling)
    return levels(finest, up_to=up_to, pooling=pooling)


def pooling_of(fusion: FusionSpec) -> Pooling:
    """Of the built-in parts; where nothing is pooled, one as well as the other."""
    return fusion.injection.pooling if fusion.injection is not None else "mean"


def projection_of(model: EsamSingleView, branch: Branch, stride: int) -> Projection:
    """The layer that is there for this place, by its name in the model."""
    if branch == "stem":
        return cast(StemFusion, model.parts["stem"]).projection
    return cast(Projection, cast(Injection, model.parts["injection"]).projections[f"stride{stride}"])


def expected_added(
    model: EsamSingleView, branch: Branch, stride: int, by_hand: Mapping[int, ReferenceLevel], *, fusion: FusionSpec
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
